"""Draws docs/architecture.svg, the picture of README: `python docs_site/architecture.py`.

Boxes carry their own background, and lines are a mid grey, so that the picture is legible on a
light and on a dark page. A test draws it again and compares.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 680, 452
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
LINE = "#7d8590"
INK, PAPER = "#17212b", "#f4f6f8"
BLUE, GREEN, VIOLET = "#1f5f99", "#1d6b4c", "#63479c"
OUT = Path(__file__).parents[1] / "docs" / "architecture.svg"


def box(x: int, y: int, width: int, height: int, colour: str, title: str, lines: list[str]) -> str:
    """A titled card: its heading on the colour, its lines on paper; `word: text` in two columns."""
    rows = ""
    for i, line in enumerate(lines):
        word, colon, text = line.partition(": ")
        rows += f'<text x="{x + 14}" y="{y + 60 + 24 * i}" fill="{INK}">'
        if colon:
            rows += f'<tspan font-weight="600">{escape(word)}</tspan><tspan x="{x + 116}">'
            rows += f"{escape(text)}</tspan></text>"
        else:
            rows += f"{escape(line)}</text>"
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="10" fill="{PAPER}" '
        f'stroke="{colour}" stroke-width="2"/>'
        f'<path d="M{x} {y + 36} v-26 a10 10 0 0 1 10 -10 h{width - 20} a10 10 0 0 1 10 10 v26 z" '
        f'fill="{colour}"/>'
        f'<text x="{x + 14}" y="{y + 24}" fill="#fff" font-weight="600">{escape(title)}</text>'
        f"{rows}"
    )


def arrow(points: str, label: str, x: int, y: int, width: int) -> str:
    """A line with a head, and its label on a plate of its own around (x, y)."""
    return (
        f'<path d="{points}" fill="none" stroke="{LINE}" stroke-width="2.5" '
        'marker-end="url(#head)"/>'
        f'<rect x="{x - width // 2}" y="{y - 15}" width="{width}" height="22" rx="6" '
        f'fill="{PAPER}" stroke="{LINE}" stroke-width="1"/>'
        f'<text x="{x}" y="{y + 1}" fill="{INK}" font-size="14" text-anchor="middle">'
        f"{escape(label)}</text>"
    )


def picture() -> str:
    """The whole picture as SVG."""
    parts = [
        box(
            10, 10, 250, 170, BLUE, "environment",
            ["video file, question", "K overview frames", "crops decoded in parallel",
             "a status for each crop", "reward terms"],
        ),
        box(
            420, 10, 250, 170, GREEN, "agent",
            ["one multimodal policy", "reads the overview", "asks for several crops a turn",
             "sub-agents read the crops", "answers from the evidence"],
        ),
        box(
            10, 270, 660, 172, VIOLET, "trainer",
            ["rollouts: G rollouts of each question, the number K drawn for each",
             "credit: rewards of a group become the advantage of every token",
             "packing: the shared prompt once, a branch for each rollout",
             "update: policy-gradient loss, optimizer, new weights",
             "evaluate: evaluation, reports and studies play through the same code"],
        ),
        arrow("M262 64 H416", "frames", 338, 64, 96),
        arrow("M418 106 H264", "crops, answer", 341, 106, 116),
        arrow("M264 148 H416", "crop frames", 338, 148, 106),
        arrow("M135 182 V266", "rewards", 135, 222, 84),
        arrow("M480 182 V266", "tokens", 480, 222, 76),
        arrow("M610 268 V184", "weights", 610, 228, 80),
    ]  # fmt: skip
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-labelledby="title" font-family="{FONT}" font-size="16">'
        '<title id="title">Environment, agent and trainer: frames go to the agent, crops and an '
        "answer come back; rollouts and rewards go to the trainer, weights come back</title>"
        '<defs><marker id="head" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" '
        f'markerHeight="7" orient="auto-start-reverse"><path d="M0 0 L10 5 L0 10 z" fill="{LINE}"/>'
        f"</marker></defs>{''.join(parts)}</svg>\n"
    )


if __name__ == "__main__":
    OUT.write_text(picture(), encoding="utf-8")
    print(OUT)

"""The page of a made set: counts, what was rejected, baselines, and rows with their frames.

After the data engine, from the files that it wrote; read before a set is trained on. Texts come
from models and are escaped; the page holds no script. Written by `paravt data reason`. Tests:
`pytest tests/datagen/test_page.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from paravt_env.task import OPTION_LETTERS, Task
from paravt_env.tasksets.base import TaskList
from paravt_env.tasksets.jsonl import JsonlTasks
from train.config.reason import ReasonConfig
from train.datagen.manifest import MANIFEST
from train.datagen.refusal import REASONS
from train.evaluation.bootstrap import Interval, interval, video_clusters
from train.evaluation.evaluate import majority_answers
from train.evaluation.scores import mean
from train.report.page import document, write_html
from train.report.rollouts import SHOWN_FRAMES, Overview, read_overview, seen
from train.report.tables import in_percent

PAGE = "report.html"
"""Beside the manifest."""


def write_page(
    config: ReasonConfig,
    summary: Mapping[str, Any],
    overview: Callable[[str, int], Overview] = read_overview,
) -> Path:
    """Write `report.html` into the folder of a set.

    Args:
        config: Of the set.
        summary: Its counts, from `write_set`.
        overview: Reads K frames of a video.
    """
    folder = Path(config.output)
    tasks = JsonlTasks(folder / MANIFEST, root=config.source, strict=summary["kept"] > 0)
    page = render(folder.resolve().name, tasks, summary, chosen(tasks, config), overview)
    return write_html(folder / PAGE, page)


def chosen(tasks: TaskList, config: ReasonConfig) -> list[Task]:
    """A seeded sample, category after category, so that each is shown."""
    rng = np.random.default_rng(config.seed)
    left = [tasks[int(i)] for i in rng.permutation(len(tasks))]
    shown: list[Task] = []
    while left and len(shown) < config.samples:
        counts = Counter(task.category for task in shown)
        shown.append(left.pop(min(range(len(left)), key=lambda i: counts[left[i].category])))
    return shown


def render(
    name: str,
    tasks: TaskList,
    summary: Mapping[str, Any],
    samples: Sequence[Task],
    overview: Callable[[str, int], Overview],
) -> str:
    """The page as text; reads frames through `overview` and nothing else."""
    sections = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="lead">{summary["kept"]} rows of {summary["planned"]} kept, '
        f"{summary['rejected']} rejected, {summary['pending']} not reached; "
        f"{summary['videos']} videos, {summary['clips']} clips.</p>",
        _cards(tasks, summary),
        "<h2>Baselines</h2>",
        _table(("", "found", "share, with its interval over videos"), baselines(tasks, summary)),
        '<p class="soft">Blind: solvers without the video. Over judged rows it is their first try; '
        "over kept rows one more try, which rejected nothing.</p>",
        "<h2>Counts</h2>",
        *(
            _table((title, "rows", "share"), _shares(summary[key]))
            for title, key in (
                ("category", "categories"),
                ("letter", "letters"),
                ("split", "splits"),
            )
        ),
        _table(("seconds", "shortest", "median", "longest"), _durations(tasks)),
        "<h2>Rejected</h2>",
        _table(("reason", "rows", "what it means"), _reasons(summary["reasons"])),
        "<h2>Cost</h2>",
        _table(("step", "requests", "failed", "tokens sent", "sampled", "cost"), _costs(summary)),
        "<h2>Rows</h2>" if samples else "",
        *(_sample(task, overview) for task in samples),
    ]
    return document(name, sections)


def baselines(tasks: TaskList, summary: Mapping[str, Any]) -> list[Sequence[str]]:
    """What is right without looking: the most frequent letter, blind solvers, chance."""
    if not tasks:
        return []
    best = majority_answers(tasks)
    majority = [float(task.answer == best[task.family]) for task in tasks]
    blind = [task.metadata["provenance"]["found_blind"] for task in tasks]
    lines: list[Sequence[str]] = [
        ("majority letter of each category", _found(majority), in_percent(_of(tasks, majority)))
    ]
    if None not in blind:
        found = list(map(float, blind))
        lines.append(("blind, kept rows", _found(found), in_percent(_of(tasks, found))))
    judged, right = summary["blind"]["judged"], summary["blind"]["judged_found"]
    if judged:
        lines.append(
            ("blind, judged rows", f"{right} of {judged}", f"{100 * right / judged:.1f} %")
        )
    chance = mean(1 / len(task.options) for task in tasks)
    lines.append(("chance", "", f"{100 * chance:.1f} %"))
    longest = summary["longest_is_answer"]
    lines.append(
        ("the longest option is right", f"{longest} of {len(tasks)}",
         f"{100 * longest / len(tasks):.1f} %")
    )  # fmt: skip
    return lines


def _of(tasks: TaskList, values: Sequence[float]) -> Interval:
    clusters = video_clusters([task.id for task in tasks], [task.video for task in tasks])
    return interval(values, clusters)


def _found(values: Sequence[float]) -> str:
    return f"{sum(values):.0f} of {len(values)}"


def _cards(tasks: TaskList, summary: Mapping[str, Any]) -> str:
    total, planned = summary["total"], summary["planned"]
    cards = {
        "kept": f"{100 * summary['kept'] / planned:.0f} %" if planned else "-",
        "hours of video": f"{sum(_lengths(tasks).values()) / 3600:.1f}",
        "requests": str(total["requests"]),
        "cost": f"{total['cost']:.2f}",
    }
    inner = "".join(f"<div class=card><b>{v}</b><span>{k}</span></div>" for k, v in cards.items())
    return f"<div class=cards>{inner}</div>"


def _lengths(tasks: TaskList) -> dict[str, float]:
    return {task.video: float(task.metadata["duration"]) for task in tasks}


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<div class=scroll><table><tr>{head}</tr>{body}</table></div>"


def _shares(counts: Mapping[str, int]) -> list[Sequence[str]]:
    total = sum(counts.values())
    return [(name, str(count), f"{100 * count / total:.1f} %") for name, count in counts.items()]


def _durations(tasks: TaskList) -> list[Sequence[str]]:
    measured = {
        "videos": list(_lengths(tasks).values()),
        "evidence of a row": [sum(b - a for a, b in task.evidence) for task in tasks],
    }
    return [
        (name, *(f"{value:.1f}" for value in (min(some), float(np.median(some)), max(some))))
        for name, some in measured.items()
        if some
    ]


def _reasons(counts: Mapping[str, int]) -> list[Sequence[str]]:
    most_first = sorted(counts.items(), key=lambda one: -one[1])
    return [(reason, str(count), REASONS[reason]) for reason, count in most_first]


def _costs(summary: Mapping[str, Any]) -> list[Sequence[str]]:
    names = ("requests", "failures", "prompt_tokens", "completion_tokens")
    spent = {**summary["spent"], "all": summary["total"]}
    return [
        (step, *(str(usage[name]) for name in names), f"{usage['cost']:.4f}")
        for step, usage in spent.items()
    ]


def _sample(task: Task, overview: Callable[[str, int], Overview]) -> str:
    options = "\n".join(
        f"{letter}. {text}{'  (answer)' if letter == task.answer else ''}"
        for letter, text in zip(OPTION_LETTERS, task.options, strict=False)
    )
    look, note = seen(task.video, SHOWN_FRAMES, task.evidence, {}, overview)
    return (
        f"<div class=rollout><h3>{escape(task.category)} · {escape(task.id)}</h3>"
        f"<pre>{escape(task.question)}\n{escape(options)}</pre>{look}"
        f'<p class="soft">{escape(note)}</p>'
        f"<pre>{escape(str(task.metadata['reasoning']))}</pre></div>"
    )

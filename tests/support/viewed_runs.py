"""A run's folder as training and evaluation leave it, made in no time; with any text in it."""

import gzip
import json

from support.evaluations import report, row

from train.common.rollout_file import write_step
from train.evaluation.token_files import file_name

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
SETTINGS = "env:\n  max_turns: 2\nrun:\n  steps: 10\n"


def tokens(*texts, kind="main", prompt="What happens?"):
    """A conversation: a text that was given, then sampled ones with numbers that differ."""
    sampled = list(range(len(texts)))
    return {
        "kind": kind,
        "version": 0,
        "prompt": prompt,
        "pieces": ["given ", *texts],
        "roles": [3, *[1 + i % 5 for i in sampled]],
        "logprobs": [None, *[-0.01 - i for i in sampled]],
        "advantages": [None, *[i - 1.0 for i in sampled]],
        "ratios": [None, *[0.5 + 0.5 * i for i in sampled]],
    }


def record(video, member=0, group=0, **changes):
    """A kept rollout: a crop that a sub-agent read, and one that failed."""
    crops = [
        {"window": [5.0, 9.0], "status": "ok", "message": "", "frames": 2, "reading": 1},
        {"window": [None, None], "status": "malformed", "message": "no", "frames": 0},
    ]
    base = {
        "group": group,
        "member": member,
        "task_id": "colour",
        "video": video,
        "family": "colour",
        "category": "",
        "frame_budget": 4,
        "duration": 30.0,
        "question": "Which colour?",
        "gold": "B",
        "evidence": [[6.0, 8.0]],
        "correct": float(member % 2),
        "reward": 1.25,
        "terms": {"answer": 1.0, "format_anchor": 0.5, "tool_gain": -0.25},
        "compliant": member != 1,
        "calls": 2 if member < 3 else 0,
        "executed": 1 if member < 3 else 0,
        "forced": member == 2,
        "stop_reason": "answered",
        "error": "",
        "answer": "B",
        "turns": [{"completion": "look", "crops": crops}, {"completion": "B", "crops": []}],
        "conversations": [
            tokens("look", " there", "<answer>", "B"),
            tokens("blue", kind="subagent"),
        ],
    }
    return base | changes


def write_run(folder, video, steps=3, **changes):
    """Write a run: metrics, kept rollouts (a group of four a step), settings, an evaluation."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(SETTINGS)
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(steps):
            metrics = {"step": step, "reward": 0.1 * step, "accuracy": 0.5, "calls/K=4": 1.0}
            file.write(json.dumps(metrics) + "\n")
    for step in range(steps):
        write_step(folder, step, [record(video, member, **changes) for member in range(4)])
    crop = {"window": [5.0, 9.0], "status": "ok", "message": "", "frames": 2}
    turns = ({"completion": "look", "crops": [crop]},)
    played = {"video": video, "turns": turns, "duration": 30.0}
    kept = {"terms": {"answer": 1.5, "form": -0.5}, "reward": 1.0}
    rows = [row("a", 1.0, **played, **kept), row("b", 0.0, **played)]
    report(*rows).save(folder / "after.json")
    unmoved = {"advantages": [None] * 3, "ratios": [None] * 3}
    talks = [tokens("look", "B") | unmoved, tokens("it is", " blue", kind="subagent") | unmoved]
    path = folder / "after.tokens" / file_name(rows[0])
    path.parent.mkdir()
    path.write_bytes(gzip.compress(json.dumps(talks).encode()))
    return folder

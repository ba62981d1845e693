"""What a person's episodes leave behind: rows of an evaluation, and conversations to imitate.

In the folder `human` of the run: `after.json`, which `paravt compare` reads as any evaluation, and
`paravt_sft_human.jsonl`, conversations in the layout of ParaVT-Parquet, which `paravt sft` trains
on. The first attempt at a task with K frames is the one that counts, and only conversations that
end right are to be imitated. Tests: `pytest tests/viewer/test_play.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from paravt_env.common.infos import plain
from paravt_env.protocol.parts import evidence_parts, forced_answer_text
from paravt_env.protocol.styles import PromptStyle
from paravt_env.tasksets.published.paravt_parquet import MEDIA, PLACEHOLDER
from train.config.evaluation import EvalConfig
from train.evaluation.evaluate import majority_answers
from train.evaluation.row import make_row
from train.evaluation.scores import EvalReport
from train.viewer.human import Episode
from train.viewer.listing import CORRECT_FROM

FOLDER = "human"
REPORT, TRACES = "after.json", "paravt_sft_human.jsonl"
UNSAID = "seen"
"""What a crop's reading says where the person wrote no note."""


def save(folder: Path, episode: Episode, settings: EvalConfig, style: PromptStyle) -> bool:
    """Add an episode that was scored to a run's human ones; whether it was its first attempt.

    Args:
        folder: Of the run.
        episode: It has ended.
        settings: Of the evaluation that it can be compared with.
        style: In whose words evidence is told.
    """
    if episode.rollout is None:
        raise ValueError("an episode that has not ended cannot be saved")
    path = folder / FOLDER / REPORT
    rows = EvalReport.load(path).rows if path.is_file() else ()
    tasks = episode.env.simulation.tasks
    weights = episode.env.simulation.preset.weights
    row = make_row(episode.rollout, episode.task, majority_answers(tasks), episode.start, weights)
    if any((row.task_id, row.frame_budget) == (one.task_id, one.frame_budget) for one in rows):
        return False
    found = sorted([*rows, row], key=lambda one: (one.frame_budget, one.task_id))
    EvalReport(tuple(found), plain(asdict(settings)) | {"policy": FOLDER}).save(path)
    if episode.rollout.correct > CORRECT_FROM:
        line = json.dumps({"messages": conversation(episode, style)}, allow_nan=False)
        with path.with_name(TRACES).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    return True


def conversation(episode: Episode, style: PromptStyle) -> list[dict[str, Any]]:
    """An episode as messages: the question with its video, turns, and what the crops brought.

    What stands between two turns is what a rollout's context holds there, with the person's notes
    in place of the sub-agent's readings.
    """
    video = MEDIA[0]
    task = episode.task
    asked = [
        {"type": video, video: {"url": str(Path(task.video).resolve())}},
        {"type": "text", "text": f"{PLACEHOLDER}\n{task.prompt}"},
    ]
    messages: list[dict[str, Any]] = [{"role": "user", "content": asked}]
    for number, moment in enumerate(episode.moments):
        if moment.said is None:
            break
        if number:
            text = evidence(moment.view, moment.windows, moment.said.notes, style)
            messages.append({"role": "user", "content": [{"type": "text", "text": text}]})
        said = {"type": "text", "text": moment.said.completion}
        messages.append({"role": "assistant", "content": [said]})
    return messages


def evidence(
    view: dict[str, Any],
    windows: Sequence[tuple[float, float]],
    notes: Sequence[str],
    style: PromptStyle,
) -> str:
    """What a context says after the calls of a turn, in a style's words."""
    count = len(view["crop_status"])
    told = [note.strip() or UNSAID for note in notes][:count]
    texts = [*told, *[UNSAID] * (count - len(told))]
    padded = [*windows, *[(0.0, 0.0)] * (count - len(windows))]
    parts = evidence_parts(style, view, padded, texts)
    forced = forced_answer_text(style) if view["must_answer"] else ""
    return "".join(map(str, parts)) + forced

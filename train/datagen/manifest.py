"""What a run leaves behind: the manifest, every rejected row, all captions, and the counts.

Last step of the data engine. All files are written whole, from what the run knows, in the order of
the videos' names: two runs that know the same write the same bytes. The manifest is a JSONL task
set (`docs/data.md`): a kept row's letters are dealt here, and its metadata say where it comes from.
Tests: `pytest tests/datagen/test_manifest.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from paravt_env.common.files import write_whole
from paravt_env.common.http.client import Usage
from paravt_env.task import OPTION_LETTERS, Task
from paravt_env.tasksets.made.drafts import Draft, arrange
from train.config.reason import ReasonConfig
from train.datagen.captions import Caption
from train.datagen.engine import Made
from train.datagen.judging import Verdict
from train.datagen.refusal import Rejected

MANIFEST, REJECTED, CAPTIONS, SUMMARY = (
    "manifest.jsonl", "rejected.jsonl", "captions.jsonl", "summary.json",
)  # fmt: skip
PENDING = "pending"
"""Of a row that the budget kept from being made: it is neither kept nor rejected."""
SOURCE = "reason"


def write_set(made: Made, planned: Sequence[str], config: ReasonConfig) -> dict[str, Any]:
    """Write the files of a set into `config.output`; the counts, which are in `summary.json`."""
    folder = Path(config.output)
    tasks = tasks_of(made, planned, config)
    lines = [{**asdict(task), "split": split} for task, split in tasks]
    write_lines(folder / MANIFEST, lines)
    rejected = [line for row in planned if (line := rejected_line(row, made)) is not None]
    write_lines(folder / REJECTED, rejected)
    write_lines(folder / CAPTIONS, caption_lines(made))
    summary = summed(made, tasks, rejected, planned)
    write_whole(folder / SUMMARY, json.dumps(summary, indent=1) + "\n")
    return summary


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write JSON objects, a line each."""
    write_whole(path, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))


def tasks_of(made: Made, planned: Sequence[str], config: ReasonConfig) -> list[tuple[Task, str]]:
    """Tasks of the kept rows with their splits, letters dealt video by video.

    Of every `options` questions of a video each letter is right once, so that no letter is worth
    guessing, whatever was rejected; and the letters of a video do not depend on other videos.
    """
    decks: dict[str, tuple[list[int], np.random.Generator]] = {}
    tasks = []
    for row_id in planned:
        verdict = made.verdicts.get(row_id)
        if verdict is None or verdict.error is not None:
            continue
        row = verdict.row
        start = [config.seed, *bytes.fromhex(row.film.fingerprint)]
        deck, rng = decks.setdefault(row.film.name, ([], np.random.default_rng(start)))
        draft = Draft(row.question, row.answer, row.evidence, row.wrong)
        task = draft.as_task(
            arrange(draft, deck, rng, _shuffled),
            id=row.id,
            video=row.film.name,
            category=row.category,
            family=row.category,
            source=SOURCE,
            metadata={
                "reasoning": row.reasoning,
                "duration": row.film.duration,
                "provenance": provenance(verdict, made, config),
            },
        )
        tasks.append((task, row.film.split))
    return tasks


def provenance(verdict: Verdict, made: Made, config: ReasonConfig) -> dict[str, Any]:
    """Where a row comes from: video, models, and the calls in `calls.jsonl` by their keys."""
    row = verdict.row
    captions = [one for one in made.captions[row.film.name] if isinstance(one, Caption)]
    solvers = [server.model for server in config.solvers] or [config.writer.model]
    return {
        "video": row.film.fingerprint,
        "captioner": config.captioner.model,
        "writer": config.writer.model,
        "solvers": solvers,
        "clips": list(row.clips),
        "calls": {
            "caption": [one.key for one in captions if one.clip.number in row.clips],
            "question": [row.key],
            **verdict.calls,
        },
        "found_blind": verdict.blind_after,
    }


def rejected_line(row_id: str, made: Made) -> dict[str, Any] | None:
    """The line of a row that was rejected; None for one that is kept or was not reached."""
    verdict = made.verdicts.get(row_id)
    error = made.errors.get(row_id) if verdict is None else verdict.error
    if not isinstance(error, Rejected):
        return None
    line: dict[str, Any] = {"id": row_id, "reason": error.reason, "message": str(error)}
    if row_id in made.items:
        line["row"] = made.items[row_id]
    if verdict is not None:
        line["calls"] = verdict.calls
    return line


def caption_lines(made: Made) -> list[dict[str, Any]]:
    """All clips with their captions, or with the reason why there is none."""
    lines = []
    for name in sorted(made.captions):
        for one in made.captions[name]:
            if isinstance(one, Caption):
                lines.append({"video": name, **one.as_data(), "call": one.key})
                continue
            clip, error = one
            if isinstance(error, Rejected):
                told = {"reason": error.reason, "message": str(error)}
                lines.append({"video": name, **clip.as_data(), **told})
    return lines


def summed(
    made: Made,
    tasks: Sequence[tuple[Task, str]],
    rejected: Sequence[Mapping[str, Any]],
    planned: Sequence[str],
) -> dict[str, Any]:
    """The counts of a set; `planned` is `kept`, `rejected` and `pending` together."""
    clips = [one for there in made.captions.values() for one in there]
    lost = [one[1] for one in clips if not isinstance(one, Caption)]
    first = [v.blind_first for v in made.verdicts.values() if v.blind_first is not None]
    kept = [made.verdicts[task.id].blind_after for task, _ in tasks]
    after = [found for found in kept if found is not None]
    return {
        "planned": len(planned),
        "kept": len(tasks),
        "rejected": len(rejected),
        PENDING: len(planned) - len(tasks) - len(rejected),
        "reasons": _counted(line["reason"] for line in rejected),
        "videos": len(made.films),
        "clips": len(clips),
        "clips_without_caption": _counted(e.reason for e in lost if isinstance(e, Rejected)),
        "splits": _counted(split for _, split in tasks),
        "categories": _counted(task.category for task, _ in tasks),
        "letters": _counted(task.answer for task, _ in tasks),
        "longest_is_answer": sum(_longest(task) for task, _ in tasks),
        "blind": {
            "judged": len(first),
            "judged_found": sum(map(bool, first)),
            "kept": len(after),
            "kept_found": sum(map(bool, after)),
        },
        "spent": {step: asdict(usage) for step, usage in sorted(made.spent.items())},
        "total": asdict(_total(made.spent.values())),
        "stopped_by_budget": made.over,
    }


def _total(usages: Any) -> Usage:
    total = Usage()
    for usage in usages:
        total.add(usage)
    return total


def _counted(words: Any) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


def _longest(task: Task) -> bool:
    """Whether the answer is longer than every other option."""
    gold = task.options[OPTION_LETTERS.index(task.answer)]
    return all(len(option) < len(gold) for option in task.options if option != gold)


def _shuffled(options: Sequence[str], rng: np.random.Generator) -> list[str]:
    return [options[int(i)] for i in rng.permutation(len(options))]


def unfinished(summary: Mapping[str, Any]) -> str:
    """Why the same command has more to do; "" where it has not."""
    if summary["stopped_by_budget"]:
        return (
            f"{summary[PENDING]} rows wait: the budget is spent (max_cost, max_tokens); raise it "
            "and run the same command again"
        )
    silent = summary["reasons"].get("no_reply", 0)
    silent += summary["clips_without_caption"].get("no_reply", 0)
    if silent:
        return f"{silent} rows or clips got no reply: the same command asks for them again"
    return ""

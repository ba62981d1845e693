"""Questions about planned pictures, and the files of a split: PNGs and a manifest.

Second step of the `zoom` task set. Files appear whole or not at all, and a second call makes
those that are missing. Run `paravt data make zoom`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from paravt_env.common.files import MADE_AGAIN, atomic_path
from paravt_env.common.images import encode_png
from paravt_env.common.progress import Progress
from paravt_env.task import Task
from paravt_env.tasksets.made.base import (
    dials_folder,
    open_dials_folder,
    write_manifest,
)
from paravt_env.tasksets.made.drafts import Draft, pick, tasks_of
from paravt_env.tasksets.made.synthetic.world import SYMBOLS
from paravt_env.tasksets.made.zoom.world import Cell, Plan, ZoomSettings, draw, plan_picture

WORLD_VERSION = 1  # raise when the same settings draw or ask something else

ATTEMPTS = 20
"""Draws after which a family has no other question about a picture."""


def _inside(plan: Plan, rng: np.random.Generator) -> Draft | None:
    """Which symbol is in the frame of a colour? The wrong ones are elsewhere in the picture."""
    (asked,) = pick(plan.framed, 1, rng)
    others = sorted({cell.symbol for cell in plan.cells} - {asked.symbol})
    wrong = pick(others, 3, rng) or pick([s for s in SYMBOLS if s != asked.symbol], 3, rng)
    question = f"Which symbol is in the {asked.colour} frame?"
    return Draft(question, asked.symbol, (), tuple(wrong), metadata={"asked": [asked.colour]})


def _holds(plan: Plan, rng: np.random.Generator) -> Draft | None:
    """Which frame holds a symbol that just one of them holds?"""
    held = [cell.symbol for cell in plan.framed]
    alone = [cell for cell in plan.framed if held.count(cell.symbol) == 1]
    if not alone:
        return None
    (asked,) = pick(alone, 1, rng)
    wrong = pick([cell.colour for cell in plan.framed if cell is not asked], 3, rng)
    question = f"Which frame holds the {asked.symbol}?"
    asked_cells = [asked.colour, *wrong]
    return Draft(question, asked.colour, (), tuple(wrong), metadata={"asked": asked_cells})


DRAFTERS = {"inside": ("detail", _inside), "holds": ("search", _holds)}


def make_tasks(plan: Plan, settings: ZoomSettings, index: int) -> list[Task]:
    """The questions about a picture, paths relative to the set's folder."""
    rng = np.random.default_rng((*plan.seed, 2))
    drafts = list(_different(plan, settings, index, rng))
    metadata = {"cells": [_told(cell, settings) for cell in plan.framed]}
    return tasks_of(
        plan.name,
        drafts,
        DRAFTERS,
        rng,
        lambda wrong, rng: pick(wrong, len(wrong), rng),
        metadata,
        video="",
        images=(f"videos/{plan.name}.png",),
        source=settings.name,
    )


def _different(
    plan: Plan, settings: ZoomSettings, index: int, rng: np.random.Generator
) -> Iterator[tuple[str, Draft]]:
    """Different questions, the families in turns; fewer where a picture has no more."""
    seen: set[str] = set()
    first = index * settings.questions
    for turn in range(first, first + settings.questions):
        family = settings.families[turn % len(settings.families)]
        for _ in range(ATTEMPTS):
            draft = DRAFTERS[family][1](plan, rng)
            if draft is not None and draft.question not in seen:
                seen.add(draft.question)
                yield family, draft
                break


def _told(cell: Cell, settings: ZoomSettings) -> dict:
    return {"colour": cell.colour, "symbol": cell.symbol, "box": list(cell.box(settings))}


def plan_tasks(settings: ZoomSettings, split: str, pictures: int) -> list[Task]:
    """Tasks of a split's first pictures; nothing is written."""
    plan = partial(plan_picture, settings, split)
    return [task for index in range(pictures) for task in make_tasks(plan(index), settings, index)]


def make_split(
    settings: ZoomSettings, split: str, videos: int, root: Path, progress: bool = True
) -> Path:
    """Make what is missing of a split's first `videos` pictures; its manifest (JSONL).

    Raises:
        OSError: The folder cannot be written.
    """
    folder = dials_folder(settings, root, {"version": WORLD_VERSION})
    open_dials_folder(folder, settings)
    plans = [plan_picture(settings, split, index) for index in range(videos)]
    missing = [plan for plan in plans if not (folder / "videos" / f"{plan.name}.png").exists()]
    total = len(missing)
    bar = Progress(f"zoom {split}: making pictures", total, progress)
    for done, plan in enumerate(missing):
        bar.show(done, f"{done}/{total}")
        with atomic_path(folder / "videos" / f"{plan.name}.png", MADE_AGAIN) as path:
            path.write_bytes(encode_png(draw(plan, settings)))
    if missing:
        bar.show(total, f"{total}/{total}")
    return write_manifest(folder, split, videos, plan_tasks(settings, split, videos))

"""`paravt data reason`: question - reasoning - answer rows from a folder of videos.

Reads the settings, runs the engine, writes the set and its page. Status 1 where there is more to
do: the budget is spent, or a server did not reply to all. Needs no torch. Tests: `pytest
tests/commands/test_reason.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from train.commands.options import recipe_settings
from train.config.reason import ReasonConfig


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Make a set, or what is missing of it; the exit status is 1 where more is to be done."""
    parser.prog += " reason"
    config = recipe_settings(parser, ReasonConfig, words, "reason")
    if config is None:
        return 0
    from train.config import recipe  # after the settings are known to be good
    from train.datagen.engine import Engine
    from train.datagen.manifest import MANIFEST, unfinished, write_set
    from train.datagen.page import write_page

    engine = Engine(config)
    recipe.save(config, Path(config.output))
    made = engine.run()
    summary = write_set(made, engine.planned, config)
    page = write_page(config, summary)
    print("\n".join(told(summary)))
    print(f"{page} shows it")
    if summary["kept"]:
        manifest = Path(config.output) / MANIFEST
        print(
            f"train on it: --env.tasks={manifest} --env.tasks_kwargs.root={config.source} (splits: "
            f"{', '.join(summary['splits'])})"
        )
    more = unfinished(summary)
    if more:
        print(more)
    return 1 if more else 0


def told(summary: Mapping[str, Any]) -> list[str]:
    """The counts of a set in a few lines."""
    total = summary["total"]
    lines = [
        f"{summary['planned']} rows asked for, {summary['kept']} kept, {summary['rejected']} "
        f"rejected, {summary['pending']} not reached; {summary['videos']} videos, "
        f"{summary['clips']} clips"
    ]
    for name in ("reasons", "splits", "categories", "letters"):
        counts = ", ".join(f"{key} {count}" for key, count in summary[name].items())
        lines.append(f"  {name}: {counts or 'none'}")
    lines.append(
        f"  asked: {total['requests']} requests, {total['prompt_tokens']} tokens sent, "
        f"{total['completion_tokens']} sampled, cost {total['cost']:.4f}"
    )
    return lines

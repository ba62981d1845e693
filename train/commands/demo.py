"""`make demo`: the whole journey in minutes, from mp4 files to a report that says what was learned.

Videos, the shipped cold start on the test split, PARA-GRPO, the same test again, `report.html`.
Every stage is timed. A second run starts afresh in the folder of the first and uses the videos that
are there already. Run it with `paravt demo`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from paravt_env.common.files import write_whole
from train.commands.options import recipe_settings
from train.common.errors import ConfigError
from train.common.lock import FILE as LOCK
from train.common.lock import folder_lock
from train.config.recipe import save
from train.config.run import TrainConfig
from train.evaluation.agents import evaluated_agent
from train.evaluation.measure import measure
from train.evaluation.tables import EvalBar
from train.report.page import learned, write_report

MARKER = "demo.txt"
"""The file in a run's folder that says that a demo made it and that the next one may delete it."""


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Read the settings, then go through all stages."""
    config = recipe_settings(parser, TrainConfig, words, "demo")
    if config is not None:
        journey(config)
    return 0


class Stages:
    """The stages of a run and the seconds that each of them took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, title: str) -> Iterator[None]:
        """Announce a stage, time it, and say how long it took."""
        print(f"== {title}", flush=True)
        began = time.monotonic()
        yield
        self.seconds[title] = round(time.monotonic() - began, 1)
        print(f"   {self.seconds[title]} s", flush=True)


def fresh_folder(folder: Path) -> Path:
    """A folder for a run, empty but for the marker; that of an earlier demo is removed.

    Raises:
        ConfigError: The folder holds something that no demo made, such as a training run.
    """
    there = [path for path in folder.iterdir() if path.name != LOCK] if folder.exists() else []
    if there:
        if not (folder / MARKER).is_file():
            raise ConfigError(
                f"{folder} holds files that no demo made, and a demo starts in an empty folder: "
                "give it another name, --run.name=NAME, or move or delete the folder"
            )
        for path in there:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / MARKER, "Made by `paravt demo`; the next one of this name deletes it.\n")
    return folder


def journey(config: TrainConfig) -> Path:
    """All stages; returns the report's path.

    Raises:
        ConfigError: The folder is in use, or holds what no demo made.
    """
    with folder_lock(config.run.path):
        return _journey(config)


def _journey(config: TrainConfig) -> Path:
    # torch: only once the settings are known to be good
    from train.lab.diagnose.observer import observers_of
    from train.loop.launch import train

    folder = fresh_folder(config.run.path)
    save(config, folder)
    stage = Stages()
    with stage("videos"):
        for split in (config.env.split, config.evaluation.split):
            config.env.make(1, split).close()
    with stage("test before training"):
        before = measure(config, evaluated_agent(config), folder / "before.json", EvalBar())
        print(f"   {learned(None, before)}")
    with stage("training"):
        model = train(config, observers_of(config))
    with stage("test after training"):
        trained = evaluated_agent(config, str(model))
        after = measure(config, trained, folder / "after.json", EvalBar())
    with stage("report"):
        path = write_report(folder)
    write_whole(folder / "seconds.json", json.dumps(stage.seconds, indent=1))
    total = sum(stage.seconds.values())
    print(f"{learned(before, after)}\n{path} ({total:.0f} s in all)")
    return path

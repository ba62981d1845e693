"""`make demo`: the whole journey in minutes, from mp4 files to a report that says what was learned.

Videos, the shipped cold start on the test split, PARA-GRPO, the same test again, `report.html`.
Every stage is timed. A second run starts afresh in the folder of the first and uses the videos that
are there already. Run it with `paravt demo`.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from paravt_env.common.files import write_whole
from train.common.errors import ConfigError
from train.config.recipe import save
from train.config.run import TrainConfig
from train.evaluation.measure import evaluated_agent, measure
from train.evaluation.tables import print_progress
from train.lab.diagnose.observer import observers_of
from train.loop import checkpoint
from train.loop.launch import train
from train.report.page import learned, write_report

MARKER = "demo.txt"
"""The file in a run's folder that says that a demo made it and that the next one may delete it."""


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
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).is_file():
            raise ConfigError(
                f"{folder} holds files that no demo made, and a demo starts in an empty folder: "
                "give it another name, --run.name=NAME, or move or delete the folder"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text("Made by `paravt demo`; the next one of this name deletes it.\n")
    return folder


def trained_model(folder: Path) -> str:
    """The policy of the newest checkpoint in a run's folder."""
    newest = checkpoint.latest(folder)
    if newest is None:
        raise FileNotFoundError(f"{folder} holds no checkpoint: the training did not finish")
    return str(newest / checkpoint.MODEL)


def run(config: TrainConfig) -> Path:
    """All stages; returns the report's path."""
    disable_progress_bar()
    folder = fresh_folder(config.run.path)
    save(config, folder)
    stage = Stages()
    with stage("videos"):
        for split in (config.env.split, config.evaluation.split):
            config.env.make(1, split).close()
    with stage("test before training"):
        before = measure(config, evaluated_agent(config), folder / "before.json", print_progress)
        print(f"   {learned(None, before)}")
    with stage("training"):
        train(config, observers_of(config))
    with stage("test after training"):
        trained = evaluated_agent(config, trained_model(folder))
        after = measure(config, trained, folder / "after.json", print_progress)
    with stage("report"):
        path = write_report(folder)
    write_whole(folder / "seconds.json", json.dumps(stage.seconds, indent=1))
    total = sum(stage.seconds.values())
    print(f"{learned(before, after)}\n{path} ({total:.0f} s in all)")
    return path

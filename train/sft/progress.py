"""Resuming a cold start: what is kept of it, and which folders are refused.

Around the stages of `train/sft/sft.py`. Until it has ended, the folder holds a checkpoint
(`train/learner/checkpoint.py`) with the policy, the optimizer, the generator, the place in every
stream and the records; a resumed run ends with the weights of one that never stopped,
bit for bit, on the same machine. Tests: `pytest tests/sft/test_resume.py`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from agents.model.vlm import VisionLanguageModel
from paravt_env.common.infos import plain
from train.common.errors import ConfigError
from train.config import recipe
from train.config.checks import without
from train.config.sft import SFTConfig
from train.distributed.processes import Processes
from train.evaluation.identity import FREE, changed
from train.learner import checkpoint
from train.learner.learner import Learner
from train.learner.meter import Meter
from train.learner.moments import learner_state, learner_tensors, restore_learner
from train.sft.saving import LOSSES, replace_policy
from train.sft.stage import Reached
from train.sft.streams import Stream

SETTINGS, WEIGHTS = "config.yaml", "config.json"
MAY_CHANGE = (
    *("run", "output", "log_every", "micro_batch_tokens", "parallel", "evaluation.seed"),
    *("agent.device", "agent.engine", "agent.vllm", "agent.feature_cache_gib"),
    *(f"env.{name}" for name in FREE["env"]),
)
"""Settings, or groups of them, that say where and how a cold start runs; `run.seed` is none."""


class Progress:
    """Writes where a cold start is, and takes it up again.

    Args:
        config: All settings.
        folder: Of the checkpoint.
        rng: The generator that the streams share.
        processes: Those that train; all of them call every method.
        saved: The checkpoint to resume from.

    Attributes:
        records: Of the losses, so far.
        stage: Number of the stage that is next, or in the middle of which `saved` is.
    """

    def __init__(
        self,
        config: SFTConfig,
        folder: Path,
        rng: np.random.Generator,
        processes: Processes,
        saved: Path | None,
    ) -> None:
        self.config, self.folder, self.rng, self.processes = config, folder, rng, processes
        self.records: list[dict[str, Any]] = []
        self.stage = 0
        self._saved: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None
        if saved is not None:
            tensors, state = checkpoint.load(saved)
            self._saved = tensors, state
            self.records, self.stage = state["records"], state["stage"]

    @property
    def source(self) -> Path | None:
        """The policy to load; None where nothing was saved."""
        saved = checkpoint.latest(self.folder)
        return saved / checkpoint.MODEL if self._saved and saved is not None else None

    def go_to(self, streams: Sequence[Stream]) -> bool:
        """Put generator and streams of the first stage where they were; whether there is such."""
        if self._saved is None:
            return False
        for stream, place in zip(streams, self._saved[1]["streams"], strict=True):
            stream.go_to(place)
        self.rng.bit_generator.state = self._saved[1]["rng"]
        return True

    def restore(self, learner: Learner) -> Reached:
        """The learner of the first stage as it was, and how far it had come."""
        assert self._saved is not None
        (tensors, state), self._saved = self._saved, None
        restore_learner(learner, tensors, state)
        return Reached(learner, state["step"], Meter.of_kept(state["meter"]), state["seconds"])

    def save(
        self, vlm: VisionLanguageModel, stage: int, reached: Reached, streams: Sequence[Stream]
    ) -> None:
        """Write the checkpoint, then the policy as it is so far.

        A frozen tower's features are forgotten: a run that resumes from here has none, and a tower
        that encodes other images beside one rounds differently.
        """
        vlm.features.clear()
        tensors = learner_tensors(reached.learner)
        if self.processes.leads:
            state = {
                "stage": stage, "step": reached.step, "seconds": reached.seconds,
                "meter": reached.meter.kept(), "records": self.records,
                "rng": self.rng.bit_generator.state,
                "streams": [stream.place() for stream in streams],
                **learner_state(reached.learner),
            }  # fmt: skip
            before = sum(one.steps for one in self.config.stages[:stage])
            checkpoint.save(self.folder, before + reached.step, vlm.save, tensors, state, keep=1)
            replace_policy(self.folder, vlm, self.records)
        self.processes.barrier(patient=True)

    def end(self, vlm: VisionLanguageModel) -> None:
        """Leave the policy alone in the folder."""
        if self.processes.leads:
            replace_policy(self.folder, vlm, self.records)
            shutil.rmtree(self.folder / checkpoint.FOLDER, ignore_errors=True)
        self.processes.barrier(patient=True)


def admitted(config: SFTConfig, folder: Path, processes: Processes) -> Path | None:
    """The checkpoint to resume from, None for a new cold start; all processes call it.

    Raises:
        ConfigError: The folder holds a policy already, or nothing to resume from.
    """
    refused = ""
    if processes.leads:
        try:
            _check(config, folder)
        except ConfigError as error:
            refused = str(error)
    if refused := processes.broadcast(refused, processes.leader):
        raise ConfigError(refused)
    return checkpoint.latest(folder)


def _check(config: SFTConfig, folder: Path) -> None:
    saved, resume = checkpoint.latest(folder), config.run.resume
    elsewhere = "give another --run.name (or --output), or move it away"
    if saved is None:
        if (folder / LOSSES).is_file():
            raise ConfigError(f"{folder} holds a policy whose cold start has ended: {elsewhere}")
        if (folder / WEIGHTS).is_file() and not (folder / SETTINGS).is_file():
            raise ConfigError(f"{folder} holds a policy that no cold start made: {elsewhere}")
        if resume:
            raise ConfigError(f"{folder} has no checkpoint: start without --run.resume")
        return
    if not resume:
        raise ConfigError(
            f"{folder} holds a cold start that has not ended: add --run.resume=true to resume from "
            f"{saved}, or {elsewhere}"
        )
    if not config.run.allow_changes and (found := changes(folder, config)):
        raise ConfigError(
            f"{folder} holds a cold start of other settings ({'; '.join(found[:6])}): resume with "
            f"its own (paravt sft {folder / SETTINGS} --run.resume=true), add "
            f"--run.allow_changes=true if they are meant, or {elsewhere}"
        )
    checkpoint.check_newest(folder)


def changes(folder: Path, config: SFTConfig) -> list[str]:
    """The deciding settings that differ from those of the cold start in a folder, a line each."""
    path = folder / SETTINGS
    if not path.is_file():
        return [f"{path} is missing, so its settings are unknown"]
    try:
        there = recipe.load(SFTConfig, path)
    except ConfigError as error:
        return [f"{path} cannot be read ({error})"]
    return list(changed(_deciding(there), _deciding(config)))


def _deciding(config: SFTConfig) -> dict[str, Any]:
    return without(plain(asdict(config)), MAY_CHANGE) | {"run": {"seed": config.run.seed}}

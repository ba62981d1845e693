"""Updates that went wrong: the step is skipped, its batch is kept, a series of them ends the run.

Used by the learner after the backward pass. A dump is a folder `skipped/step-...` of the run with
the samples of that optimizer step (safetensors and JSON, no pickle); `load` gives them back, so
that `Learner.accumulate` can be run on them again. A run that such a series ended is marked, as
torchrun would start it again: to meet the same series.

Command: `pytest tests/learner/test_faults.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from agents.base import Trajectory
from paravt_env.common.files import write_whole
from train.config.learner import FaultConfig
from train.packing.samples import ImageKeys, Sample

FOLDER = "skipped"
MARK = "stopped.txt"
"""In the run's folder: why `TooManyFaults` ended it, until it is resumed."""
_ARRAYS = ("prompt_ids", "branch_ids", "loss_mask", "logprobs", "roles")


class TooManyFaults(FloatingPointError):
    """Several updates in a row could not be taken."""


@dataclass
class FaultGuard:
    """Judges gradient norms.

    Attributes:
        config: The limits.
        folder: Where dumps go; None keeps none.
        skipped: Steps skipped so far.
        in_a_row: Steps skipped since the last good one.
    """

    config: FaultConfig
    folder: Path | None = None
    skipped: int = 0
    in_a_row: int = 0

    def fault(self, norm: float) -> str:
        """What is wrong with a gradient norm, "" where nothing is."""
        if not math.isfinite(norm):
            return f"the gradient norm is {norm}"
        limit = self.config.explode
        if limit is not None and norm > limit:
            return f"the gradient norm {norm:.4g} is above faults.explode={limit:g}"
        return ""

    def good(self) -> None:
        """A step was taken."""
        self.in_a_row = 0

    def skip(self, why: str, samples: Sequence[Sample]) -> None:
        """Count a skipped step and keep its batch.

        Raises:
            TooManyFaults: It was the last one allowed in a row.
        """
        self.skipped += 1
        self.in_a_row += 1
        kept = ""
        if self.folder is not None and self.config.dumps:
            kept = f"; its batch is in {dump(samples, self.folder, why, self.config.dumps)}"
        if self.in_a_row >= self.config.in_a_row:
            said = (
                f"{why}; nothing was updated, {self.in_a_row} times in a row{kept}. "
                "Try a lower optimizer.learning_rate or optimizer.max_grad_norm"
            )
            if self.folder is not None:
                write_whole(self.folder / MARK, said)
            raise TooManyFaults(said)
        print(f"paravt: step skipped: {why}{kept}", flush=True)


def why_stopped(run: Path) -> str:
    """What ended the run of a folder, if it was a series of faults, else ""."""
    mark = run / MARK
    return mark.read_text(encoding="utf-8") if mark.exists() else ""


def dump(samples: Sequence[Sample], run: Path, why: str, keep: int) -> Path:
    """Write the samples of a step into a new folder of the run; images once each."""
    parent = run / FOLDER
    parent.mkdir(parents=True, exist_ok=True)
    before = sorted(parent.glob("step-*"))
    number = int(before[-1].name.removeprefix("step-")) + 1 if before else 0
    folder = parent / f"step-{number:05d}"
    folder.mkdir()
    keys = ImageKeys()
    known: dict[bytes, int] = {}
    tensors: dict[str, np.ndarray] = {}
    rows: list[dict[str, Any]] = []
    for i, sample in enumerate(samples):
        one = sample.trajectory
        arrays = {name: getattr(one, name) for name in _ARRAYS} | {"advantages": sample.advantages}
        if sample.proximal is not None:
            arrays["proximal"] = sample.proximal
        tensors |= {f"{i}.{name}": np.ascontiguousarray(array) for name, array in arrays.items()}
        row: dict[str, Any] = {"kind": one.kind, "version": one.version, "weight": sample.weight}
        for name in ("prompt_images", "branch_images"):
            for image in getattr(one, name):
                key = keys(image)
                if key not in known:
                    known[key] = len(known)
                    tensors[f"image.{known[key]}"] = np.ascontiguousarray(image)
            row[name] = [known[keys(image)] for image in getattr(one, name)]
        rows.append(row)
    save_file(tensors, folder / "samples.safetensors")
    text = json.dumps({"why": why, "samples": rows}, indent=1)
    write_whole(folder / "samples.json", text)
    for old in [*before, folder][:-keep]:
        for path in old.iterdir():
            path.unlink()
        old.rmdir()
    return folder


def load(folder: str | Path) -> list[Sample]:
    """The samples of a dumped step."""
    folder = Path(folder)
    tensors = load_file(folder / "samples.safetensors")
    rows = json.loads((folder / "samples.json").read_text(encoding="utf-8"))["samples"]
    samples = []
    for i, row in enumerate(rows):
        fields: dict[str, Any] = {name: tensors[f"{i}.{name}"] for name in _ARRAYS}
        fields |= {
            name: tuple(tensors[f"image.{index}"] for index in row[name])
            for name in ("prompt_images", "branch_images")
        }
        trajectory = Trajectory(**fields, kind=row["kind"], version=row["version"])
        advantages, proximal = tensors[f"{i}.advantages"], tensors.get(f"{i}.proximal")
        samples.append(Sample(trajectory, advantages, row["weight"], proximal))
    return samples

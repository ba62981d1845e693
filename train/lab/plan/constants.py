"""Speeds and sizes of a machine that turn counts into seconds and bytes: assumed or measured.

What `benchmarks/gpu.py --json` measures and `train/lab/plan/plan.py` multiplies; a plan says which
of them were not measured. Tests: `pytest tests/lab/test_plan.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

from train.common.errors import ConfigError

GIB = 2**30
_Kind = TypeVar("_Kind")


def measured(path: str | Path, key: str, kind: type[_Kind]) -> _Kind:
    """One entry of a file that `benchmarks/gpu.py --json` wrote.

    Raises:
        ConfigError: The file holds something else.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))[key]
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} is not what benchmarks/gpu.py --json writes") from error
    if not isinstance(found, kind):
        raise ConfigError(f"{path} is not what benchmarks/gpu.py --json writes: {key!r}")
    return found


@dataclass(frozen=True)
class Constants:
    """What can be measured. The defaults are assumed, for one H200 (989 TFLOP/s in bfloat16)."""

    flops: float = 400e12
    """Operations of a GPU per second in the learner, recomputed ones included."""
    bandwidth: float = 3.3e12
    """Bytes per second at which a GPU reads its weights while it samples."""
    link: float = 200e9
    """Bytes per second between two GPUs."""
    kept: float = 34.0
    """Numbers kept for the backward pass, per token and hidden unit of a block."""
    card: float = 141e9
    """Memory of a GPU, in bytes."""
    reserve: float = 6e9
    """Of it, what the runtime takes and fragmentation loses."""
    source: str = "assumed"
    """What was measured."""
    fitted: tuple[str, ...] = ()
    """Which of these numbers come from there; the others are assumed."""

    @property
    def assumed(self) -> tuple[str, ...]:
        """Numbers that were not measured; `card` is on the data sheet."""
        return tuple(
            name for name in ("flops", "bandwidth", "link", "kept", "reserve")
            if name not in self.fitted
        )  # fmt: skip

    @classmethod
    def load(cls, path: str | Path) -> Constants:
        """The constants in a file that `benchmarks/gpu.py --json` wrote."""
        found = measured(path, "constants", dict)
        known = {field.name for field in fields(cls)}
        found = {key: value for key, value in found.items() if key in known}
        return cls(**found | {"fitted": tuple(found.get("fitted", ()))})

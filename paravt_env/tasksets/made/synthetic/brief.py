"""The `synthetic_brief` task set: the synthetic world where a look pays at every frame budget.

A variant of `synthetic` with dials of its own; the old set stays as it is. Scenes are fewer and as
long as an overview of four frames can point at, questions name such scenes alone, and events are so
brief that 64 frames miss most of them. So a few frames say where to look, and none of them what is
there: a perfect reader that crops is right at least twice as often as one that does not, from K = 4
to 64 (`paravt data stats synthetic_brief`, kept in `benchmarks/results/data_stats_brief.txt`).
Crops need 16 frames (`env.frames_per_crop`), of which one lies in every event. Tests: `pytest
tests/tasksets/test_synthetic_brief.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from paravt_env.tasksets.made.base import MadeTasks
from paravt_env.tasksets.made.synthetic.generate import make_split
from paravt_env.tasksets.made.synthetic.world import WorldSettings


@dataclass(frozen=True)
class BriefSettings(WorldSettings):
    """Dials of the variant; each may still be set, and the promise above is that of the defaults.

    A frame of four lies a quarter of its scene from noon, at most 33 seconds, so that 40 seconds
    next to it hold the event.
    """

    name: ClassVar[str] = "synthetic_brief"
    asked_at: ClassVar[int] = 4
    minutes: tuple[float, float] = (10.0, 13.0)
    scenes: int = 6
    event_seconds: float = 2.6
    event_jitter: float = 1.3
    questions: int = 4
    families: tuple[str, ...] = ("flash", "open", "where", "count", "order")


class BriefTasks(MadeTasks):
    """A split of the variant; arguments and errors as those of `SyntheticTasks`."""

    dials = BriefSettings
    default_videos: ClassVar[dict[str, int]] = {"train": 96, "val": 16, "test": 48}
    make = staticmethod(make_split)

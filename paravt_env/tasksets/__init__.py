"""Task sets: where questions and videos come from.

Start of the journey. A task set is one file, chosen by a name such as `mine.py:MyTasks`, or one
here with an entry of `TASKSETS`; a path that ends in `.jsonl` is read as a manifest. Try

    python -c "from paravt_env.tasksets import load_tasks
    print(load_tasks('synthetic', split='val', videos=1)[0].prompt)"
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from paravt_env.common.doors import chosen
from paravt_env.task import TaskError, TaskSet
from paravt_env.tasksets.jsonl import JsonlTasks
from paravt_env.tasksets.made.atari import AtariTasks
from paravt_env.tasksets.made.synthetic import SyntheticTasks
from paravt_env.tasksets.made.synthetic.brief import BriefTasks
from paravt_env.tasksets.made.zoom import ZoomTasks
from paravt_env.tasksets.mixture import NAME as MIXTURE
from paravt_env.tasksets.mixture import Mixture
from paravt_env.tasksets.published.charades_sta import CharadesSTATasks
from paravt_env.tasksets.published.hrbench import HRBenchTasks
from paravt_env.tasksets.published.longvideo_reason import LongVideoReasonTasks
from paravt_env.tasksets.published.longvideobench import LongVideoBenchTasks
from paravt_env.tasksets.published.lvbench import LVBenchTasks
from paravt_env.tasksets.published.mathvision import MathVisionTasks
from paravt_env.tasksets.published.mlvu import MLVUTasks
from paravt_env.tasksets.published.mmvu import MMVUTasks
from paravt_env.tasksets.published.paravt_parquet import ParaVTRLTasks, ParaVTSFTTasks
from paravt_env.tasksets.published.pyvision_rl import PyVisionRLTasks
from paravt_env.tasksets.published.qwen_vl import QwenVLTasks
from paravt_env.tasksets.published.video_mme import VideoMMETasks
from paravt_env.tasksets.published.vstar import VStarTasks


def _mixture(sets: Mapping[str, Any], split: str = "train") -> TaskSet:
    """Several sets as one; see `paravt_env.tasksets.mixture`."""
    return Mixture(split, sets, load_tasks)


TASKSETS: dict[str, Callable[..., TaskSet]] = {
    "synthetic": SyntheticTasks,
    "synthetic_brief": BriefTasks,
    "atari": AtariTasks,
    "zoom": ZoomTasks,
    "jsonl": JsonlTasks,
    MIXTURE: _mixture,
    "paravt_rl": ParaVTRLTasks,
    "paravt_sft": ParaVTSFTTasks,
    "longvideo_reason": LongVideoReasonTasks,
    "video_mme": VideoMMETasks,
    "longvideobench": LongVideoBenchTasks,
    "lvbench": LVBenchTasks,
    "mlvu": MLVUTasks,
    "mmvu": MMVUTasks,
    "charades_sta": CharadesSTATasks,
    "vstar": VStarTasks,
    "hrbench": HRBenchTasks,
    "mathvision": MathVisionTasks,
    "pyvision_rl": PyVisionRLTasks,
    "qwen_vl": QwenVLTasks,
}


def load_tasks(name: str, **kwargs: Any) -> TaskSet:
    """Load a task set by name, by the path of a `.jsonl` manifest, or by `file.py:name`.

    Args:
        name: A key of `TASKSETS`, a path, or `module:name` or `file.py:name` of a class or function
            that is called as the built-in ones are and gives a `TaskSet`.
        kwargs: The set's arguments; the environment adds `split`.

    Raises:
        TaskError: Unknown name (the nearest one is given), arguments that the set does not take,
            bad contents, or a door to something that makes no `TaskSet`.
    """
    if name.endswith(".jsonl"):
        name, kwargs = "jsonl", {"path": name, **kwargs}
    try:
        factory: Any = chosen("task set", name, TASKSETS)
    except ValueError as error:
        raise TaskError(str(error)) from error
    if not callable(factory):
        raise TaskError(f"task set {name!r} must be a class or a function, not {factory!r}")
    try:
        tasks = factory(**kwargs)
    except TypeError as error:
        takes = ", ".join(
            parameter.name
            for parameter in inspect.signature(factory).parameters.values()
            if parameter.kind is not parameter.VAR_KEYWORD
        )
        raise TaskError(f"task set {name!r}: {error}; its arguments are {takes}") from error
    if not isinstance(tasks, TaskSet):
        raise TaskError(
            f"task set {name!r} made a {type(tasks).__name__}, not a TaskSet: that has name, ids, "
            "len, tasks by index, and by_id"
        )
    return tasks

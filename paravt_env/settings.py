"""The environment's keyword arguments, written once: the single and the vector one take them.

Plain data (strings, numbers, lists, mappings), so that `spec.to_json()` works and a YAML recipe can
hold them; only `tasks` and `scorer` may be objects when an environment is built in Python. A name
may be that of your own code (`file.py:name`, `module:name`). Values are checked here,
before any video is opened. Run the example with `python -m doctest
paravt_env/settings.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from paravt_env.budget import FrameBudget, make_budget
from paravt_env.common.names import known_name
from paravt_env.crop import CropFrames
from paravt_env.task import TaskSet
from paravt_env.tasksets import load_tasks
from paravt_env.video.readers.backends import ISOLATION, check_backend, check_device

OVERVIEW_SAMPLING = ("exact", "snap")
"""How overview frames are chosen: the frame on screen, or a key frame near it."""

ON_VIDEO_ERROR = ("raise", "redraw")
"""What becomes of a drawn task whose video cannot be read."""

REDRAWS = 20
"""Times that a reset draws again, before the last error is raised."""

TOOLS = ("crop", "code")
"""What a turn may call: `crop_video`, or Python in a sandbox."""

EVIDENCE = ("subagent", "frames")
"""Ways in which an agent may take crop frames in."""


@dataclass(frozen=True)
class EnvSettings:
    """What an environment is made of.

    Attributes:
        tasks: Name of a task set, path of a `.jsonl` manifest, `file.py:name` of a class or
            function that makes a `TaskSet`, or a `TaskSet`.
        split: Split of the task set; ignored for a `TaskSet` object, which is one split already.
        tasks_kwargs: Further arguments of the task set's factory; a `split` among them wins.
        subtitles: Whether observations hold the task's subtitles of the times that they show.
        subtitle_characters: Most characters of subtitles of the overview, and of each crop.
        frame_size: Height and width in pixels that frames are decoded to.
        max_turns: Turns that may call; 0 asks for the answer at once.
        max_crops: Crops of one turn (P); 1 is sequential tool calling.
        frames_per_crop: Most frames of one crop.
        crop_fps: Frames a second inside a crop, before that limit.
        max_crop_seconds: A longer crop is refused.
        crop_density: Whether a call may ask for its own frames a second (`fps`, in the action
            `crop_fps`) in place of `crop_fps`; `frames_per_crop` bounds both.
        crop_quota: Frames that all crops of an episode show at most; one that would show more is
            refused (`over_quota`). 0: no bound.
        tool: `crop`; or `code`: a turn holds one `<code>` block of Python, which runs in a sandbox
            (docs/sandbox.md) and may ask for frames of the video and for the images. `max_crops`
            must then be 1, and `frames_per_crop` is the pictures that a turn shows at most.
        code_seconds: Wall time of one run of code; decoding what it asks for is not counted.
        code_memory: MiB of one session's process.
        code_characters: Characters that one run may write.
        code_frames: Frames of the video that one run may ask for.
        code_workers: Runs at one time, and sandboxes that are started ahead.
        picture_pixels: A picture of a task with more pixels is refused.
        frame_budget: See `budget.make_budget`; None is the default choice, 0 is on-demand context.
        force_answer: Whether the calling turns are followed by one turn that must answer.
        lenient_calls: Whether calls that are malformed get a second reading (`"01:30"`, single
            quotes, no closing tag: `protocol/lenient.py`). Off, well-formed calls alone run.
        untagged_answers: Whether a turn without a call and without `<answer>` answers with its
            text, as the published evaluators read it. Such an answer has no form.
        evidence: How agents are asked to take crops in: `subagent` (the same weights read each crop
            and pass on text) or `frames` (the frames go into the context). Advice to the agent:
            observations and rewards do not depend on it.
        reward: Name of a preset, or a mapping with `preset` and what differs from it, an LLM
            `judge` or `terms` for example; see `rewards.make_preset`.
        scorer: Supplies the answer term's value in place of the built-in comparison: a function
            scorer(task, answer), or its name (`file.py:name`).
        crop_timeout: Seconds that the crops of one step may take.
        reset_timeout: Seconds that decoding the overview may take.
        overview_sampling: `exact`, or `snap`: an overview frame moves to a key frame when one lies
            within a tenth of the distance between two of them; many times as fast. Timestamps are
            those of the frames delivered, either way. Crops are always exact.
        square_pixels: Whether a video's `width` is in square pixels, as players show it, where
            the stored ones are not. Frames have `frame_size` either way.
        video_workers: Decoding threads, shared by all rows.
        video_isolation: `thread`; `process`, where a decoder that hangs or crashes is killed and
            costs one window; `auto`, a process for the back ends that need it (decord).
        backend: Video back end: `pyav`, `decord`, `torchcodec` or `auto`.
        video_device: Where the back end decodes: `cpu`; `cuda` or `cuda:N` with `torchcodec` only.
        disk_cache_bytes: The most that decoded frames may take under `$PARAVT_CACHE`, shared by all
            processes of the machine; 0 keeps them in memory only.
        on_video_error: What `reset` does with a drawn task whose video cannot be read: `raise`
            (`VideoError`; a vector environment's row is finished), or `redraw`: draw another one,
            `REDRAWS` times at most, and count what was passed over. A task that was asked for by
            its id is never replaced.

    >>> EnvSettings(tasks="synthetic", max_crop=3)
    Traceback (most recent call last):
    ...
    TypeError: EnvSettings.__init__() got an unexpected keyword argument 'max_crop'...
    """

    tasks: str | TaskSet = "synthetic"
    split: str = "train"
    tasks_kwargs: Mapping[str, Any] | None = None
    subtitles: bool = False
    subtitle_characters: int = 4000
    frame_size: tuple[int, int] = (160, 288)
    max_turns: int = 3
    max_crops: int = 5
    frames_per_crop: int = 16
    crop_fps: float = 1.0
    max_crop_seconds: float = 45.0
    crop_density: bool = False
    crop_quota: int = 0
    tool: str = "crop"
    code_seconds: float = 10.0
    code_memory: int = 1024
    code_characters: int = 4000
    code_frames: int = 64
    code_workers: int = 4
    picture_pixels: int = 50_000_000
    frame_budget: int | Mapping[str, Any] | FrameBudget | None = None
    force_answer: bool = True
    lenient_calls: bool = False
    untagged_answers: bool = False
    evidence: str = "subagent"
    reward: str | Mapping[str, Any] = "paravt"
    scorer: Callable[..., float] | str | None = None
    crop_timeout: float = 20.0
    reset_timeout: float = 120.0
    overview_sampling: str = "exact"
    square_pixels: bool = False
    video_workers: int = 2
    video_isolation: str = "auto"
    backend: str = "pyav"
    video_device: str = "cpu"
    disk_cache_bytes: int = 0
    on_video_error: str = "raise"

    def __post_init__(self) -> None:
        """Check types and ranges; JSON lists become tuples."""
        size = self.frame_size
        if not isinstance(size, list | tuple) or len(size) != 2:
            raise ValueError(f"frame_size must be (height, width) in pixels, not {size!r}")
        object.__setattr__(self, "frame_size", tuple(size))
        for side in self.frame_size:
            _check("frame_size", side, int, 1)
        counts = ("max_crops", "frames_per_crop", "video_workers", "code_characters")
        for name in (*counts, "code_frames", "code_workers", "picture_pixels"):
            _check(name, getattr(self, name), int, 1)
        _check("code_memory", self.code_memory, int, 256)
        times = ("crop_fps", "max_crop_seconds", "crop_timeout", "reset_timeout", "code_seconds")
        for name in times:
            _check(name, getattr(self, name), float, 0.0)
        _check("max_turns", self.max_turns, int, 0)
        _check("crop_quota", self.crop_quota, int, 0)
        _check("subtitle_characters", self.subtitle_characters, int, 1)
        switches = (
            "subtitles",
            "force_answer",
            "square_pixels",
            "lenient_calls",
            "untagged_answers",
            "crop_density",
        )
        for name in switches:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, not {getattr(self, name)!r}")
        if self.max_turns == 0 and not self.force_answer:
            raise ValueError(
                "max_turns=0 leaves no turn at all: set force_answer=True or max_turns >= 1"
            )
        known_name("tool", self.tool, TOOLS)
        if self.tool == "code" and (self.max_crops > 1 or self.crop_density or self.crop_quota):
            raise ValueError(
                "tool='code' runs one piece of code a turn: set max_crops=1, and leave "
                "crop_density and crop_quota out"
            )
        make_budget(self.frame_budget)
        check_device(self.backend, self.video_device)
        check_backend(self.backend)
        known_name("video_isolation", self.video_isolation, ISOLATION)
        known_name("on_video_error", self.on_video_error, ON_VIDEO_ERROR)
        known_name("overview_sampling", self.overview_sampling, OVERVIEW_SAMPLING)
        _check("disk_cache_bytes", self.disk_cache_bytes, int, 0)
        known_name("evidence", self.evidence, EVIDENCE)
        if not isinstance(self.tasks, str | TaskSet):
            raise ValueError(
                "tasks must be the name of a task set, the path of a .jsonl manifest or a door "
                f"(text), or a TaskSet, not {self.tasks!r}"
            )
        names = self.tasks_kwargs or {}
        if not isinstance(names, Mapping) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"tasks_kwargs must map argument names to values, not {names!r}")
        if not isinstance(self.tasks, str) and self.tasks_kwargs:
            raise ValueError(
                "tasks_kwargs belong to a task set given by name; build the TaskSet with them"
            )

    def load_tasks(self) -> TaskSet:
        """The task set; a name is loaded with `split` and `tasks_kwargs`."""
        if not isinstance(self.tasks, str):
            return self.tasks
        return load_tasks(self.tasks, **{"split": self.split, **(self.tasks_kwargs or {})})

    @property
    def crop_frames(self) -> CropFrames | None:
        """What a prompt says of the frames of crops; None where the policy cannot choose them."""
        if not (self.crop_density or self.crop_quota):
            return None
        return CropFrames(self.crop_fps, self.frames_per_crop, self.crop_quota, self.crop_density)

    @property
    def capacity(self) -> int:
        """F, the frames of one observation: the largest overview or a full turn of crops."""
        return max(make_budget(self.frame_budget).maximum, self.max_crops * self.frames_per_crop)


class UnknownArgument(ValueError, TypeError):
    """A keyword argument that the environment does not have.

    A `TypeError` too, as Python's own: some libraries try an argument and catch it.
    """


def make_settings(arguments: Mapping[str, Any]) -> EnvSettings:
    """Build the settings.

    Raises:
        UnknownArgument: One is unknown; the nearest one is named.
    """
    names = [field.name for field in fields(EnvSettings)]
    for name in arguments:
        try:
            known_name("environment argument", name, names)
        except ValueError as error:
            raise UnknownArgument(f"unexpected keyword argument {name!r}: {error}") from None
    return EnvSettings(**arguments)


def _check(name: str, value: Any, kind: type, least: float) -> None:
    number = isinstance(value, int) if kind is int else isinstance(value, int | float)
    if not number or isinstance(value, bool):
        raise ValueError(f"{name} must be a {'whole ' if kind is int else ''}number, not {value!r}")
    if not (value >= least and value < float("inf")) or (kind is float and value == 0):
        bound = "more than 0" if kind is float else f"at least {least:g}"
        raise ValueError(f"{name} must be {bound} and finite, not {value!r}")

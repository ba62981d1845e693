"""Observation and action spaces, and the move between one row and a batch of rows.

`env.py` and `vector.py` declare these spaces, `episode/episode.py` fills observations, agents build
actions with `empty_action` and `batch_actions`, and `unbatch` takes a row of a batch;
run the tests with `pytest tests/env/test_spaces.py`.

Action (`Dict`): `crops` float64 (P, 2), start and end in seconds; `crop_mask` int8 (P,); `answer`
and `completion` text; where calls choose their density, `crop_fps` float64 (P,), frames a second,
NaN for the setting. Observation (`Dict`): `frames` uint8 (F, H, W, 3), `timestamps` seconds (F,),
`window` int16 (F,) (-1 padding, 0 overview, i the i-th crop of the turn), `question`, `video`
(duration in seconds, fps, width and height in pixels), `turn`, `must_answer`, `crop_status` int8
(P,) (0 no call, else 1 + index in `CROP_STATUSES`), `feedback`, `subtitles` (see `subtitles.py`);
where the tool is code, `output` text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import is_space_dtype_shape_equiv
from gymnasium.vector.utils import batch_differing_spaces, batch_space
from gymnasium.wrappers.utils import create_zero_array

from paravt_env.common.conversion import keep_text
from paravt_env.crop import CHOSEN_BY_SETTING, CROP_STATUSES, CropStatus

PADDING, OVERVIEW = -1, 0  # values of observation["window"]
_ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:;?!'-éßñ中文字😀"

Action = dict[str, Any]
Observation = dict[str, Any]


class UnicodeText(spaces.Space[str]):
    """Every Python string, of any length and alphabet.

    Gymnasium's own `Text` needs a finite alphabet, and its `AsyncVectorEnv` with shared memory (the
    default) silently returns zeros for a `Text` inside a `Dict`. This space is not registered for
    shared memory, so that combination raises; `AsyncVectorEnv(..., shared_memory=False)` works.

    Args:
        sample_length: `sample` draws strings of 0 to this many characters; 0 makes it always "".
        seed: Seed of the space's generator.

    >>> "any ünicode" in UnicodeText(), 3 in UnicodeText()
    (True, False)
    """

    def __init__(
        self, sample_length: int = 16, seed: int | np.random.Generator | None = None
    ) -> None:
        """Store the longest sample."""
        super().__init__(shape=None, dtype=None, seed=seed)
        self.sample_length = sample_length

    @property
    def is_np_flattenable(self) -> bool:
        """False: text has no fixed length."""
        return False

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> str:
        """A random string; masks and probabilities do not apply to it and must be None."""
        if mask is not None or probability is not None:
            raise ValueError("UnicodeText has no mask and no probability: pass None")
        length = int(self.np_random.integers(self.sample_length + 1))
        return "".join(_ALPHABET[i] for i in self.np_random.integers(len(_ALPHABET), size=length))

    def contains(self, x: Any) -> bool:
        """Whether `x` is a string."""
        return isinstance(x, str)

    def __eq__(self, other: object) -> bool:
        """Two text spaces are equal when they sample alike."""
        return isinstance(other, UnicodeText) and self.sample_length == other.sample_length

    def __repr__(self) -> str:
        """Constructor call."""
        return f"UnicodeText(sample_length={self.sample_length})"


@create_zero_array.register(UnicodeText)
def _no_text(space: UnicodeText) -> str:  # type: ignore[misc]
    """What stands in a stack of observations, or a delay, before the first one."""
    return ""


@is_space_dtype_shape_equiv.register(UnicodeText)
def _both_texts(one: UnicodeText, other: spaces.Space) -> bool:
    """Whether rows of two spaces fit into one batch."""
    return isinstance(other, UnicodeText)


@batch_differing_spaces.register(UnicodeText)
def _texts_of(texts: Sequence[UnicodeText]) -> spaces.Tuple:  # type: ignore[misc]
    """The rows of vectorised environments that differ in something else."""
    return spaces.Tuple(texts)


keep_text()


class OptionalBox(spaces.Box):
    """A `Box` whose entries may be left out: NaN is a member, which samples do not hold."""

    def contains(self, x: Any) -> bool:
        """Whether every entry is NaN or lies in the box."""
        if not isinstance(x, np.ndarray) or x.shape != self.shape:
            return super().contains(x)
        return super().contains(np.where(np.isnan(x), self.low.astype(x.dtype), x))


@batch_space.register(OptionalBox)
def _(space: OptionalBox, n: int = 1) -> OptionalBox:
    low, high = (np.repeat(bound[None], n, axis=0) for bound in (space.low, space.high))
    return OptionalBox(low, high, dtype=space.dtype, seed=deepcopy(space.np_random))


def action_space(max_crops: int, density: bool = False) -> spaces.Dict:
    """What a policy may do in a turn: up to `max_crops` crops and an answer.

    With `density`, each crop may ask for its frames a second, `crop_fps`.

    `completion` samples the empty string: a random text would contradict the random crops beside
    it. A call that could not be parsed has a NaN window; the environment takes it, although a Box
    does not contain NaN.
    """
    action: dict[str, gym.Space] = {
        "crops": spaces.Box(-np.inf, np.inf, (max_crops, 2), np.float64),
        "crop_mask": spaces.MultiBinary(max_crops),
        "answer": UnicodeText(),
        "completion": UnicodeText(sample_length=0),
    }
    if density:
        least = np.finfo(np.float64).tiny
        action["crop_fps"] = OptionalBox(least, np.inf, (max_crops,), np.float64)
    return spaces.Dict(action)


def observation_space(
    frames: int,
    height: int,
    width: int,
    max_crops: int,
    max_turns: int,
    quota: bool = False,
    code: bool = False,
) -> spaces.Dict:
    """What a policy sees after `reset` and each `step`, in fixed shapes.

    Args:
        frames: F, room for the overview or for all crops of a turn, whichever is larger.
        height: Height of a frame in pixels.
        width: Width of a frame in pixels.
        max_crops: P, the most crops of a turn.
        max_turns: Turns that may call; `turn` counts to `max_turns + 1`, the forced-answer turn
            included.
        quota: Whether a crop can be refused as `over_quota`.
        code: Whether the tool is code: `output` is there, and the statuses of code.
    """
    last = CROP_STATUSES.index(CropStatus.over_quota)
    statuses = len(CROP_STATUSES) if code else last + quota
    seconds = spaces.Box(0.0, np.inf, (), np.float64)
    pixels = spaces.Box(0, np.iinfo(np.int32).max, (), np.int32)
    shown: dict[str, gym.Space] = {"output": UnicodeText()} if code else {}
    return spaces.Dict(
        {
            "frames": spaces.Box(0, 255, (frames, height, width, 3), np.uint8),
            "timestamps": spaces.Box(0.0, np.inf, (frames,), np.float64),
            "window": spaces.Box(PADDING, max_crops, (frames,), np.int16),
            "question": UnicodeText(),
            "video": spaces.Dict(
                {"duration": seconds, "fps": seconds, "width": pixels, "height": pixels}
            ),
            "turn": spaces.Discrete(max_turns + 2),
            "must_answer": spaces.Discrete(2),
            "crop_status": spaces.Box(0, statuses, (max_crops,), np.int8),
            "feedback": UnicodeText(),
            "subtitles": UnicodeText(),
            **shown,
        }
    )


def empty_action(max_crops: int, density: bool = False) -> Action:
    """An action without crops, answer or text; what an idle row is given.

    With `density` it has `crop_fps`, all NaN: `action_space(max_crops, density)` holds it.

    >>> empty_action(2)["crop_mask"].tolist()
    [0, 0]
    """
    action: Action = {
        "crops": np.zeros((max_crops, 2), np.float64),
        "crop_mask": np.zeros(max_crops, np.int8),
        "answer": "",
        "completion": "",
    }
    return action | {"crop_fps": np.full(max_crops, CHOSEN_BY_SETTING)} if density else action


def batch_actions(actions: Sequence[Action | None], max_crops: int) -> Action:
    """Stack one action a row into the action of a vector environment; None is the empty action.

    `crop_fps` is there if a row has it, NaN in the others.

    >>> batch_actions([None, empty_action(2)], 2)["crops"].shape
    (2, 2, 2)
    """
    rows = [empty_action(max_crops) if action is None else action for action in actions]
    batch = {
        "crops": np.stack([np.asarray(row["crops"], np.float64) for row in rows]),
        "crop_mask": np.stack([np.asarray(row["crop_mask"], np.int8) for row in rows]),
        "answer": tuple(row["answer"] for row in rows),
        "completion": tuple(row["completion"] for row in rows),
    }
    if any("crop_fps" in row for row in rows):
        unset = np.full(max_crops, CHOSEN_BY_SETTING)
        asked = [np.asarray(row.get("crop_fps", unset), np.float64) for row in rows]
        batch["crop_fps"] = np.stack(asked)
    return batch


def with_density(actions: Mapping[str, Any], space: spaces.Dict, rows: int) -> Mapping[str, Any]:
    """Batched actions with `crop_fps` where `space`, that of a row, has it and they leave it out.

    Raises:
        ValueError: It is there, and not with an entry for each of `rows`; or it asks for something,
            and the environment lets no call choose.
    """
    given = actions.get("crop_fps")
    if given is not None and _length(given) != rows:
        raise ValueError(f"crop_fps needs one entry for each of the {rows} rows")
    own = space.spaces.get("crop_fps")
    if own is None:
        refuse_density(given)
        return actions
    if given is not None:
        return actions
    return {**actions, "crop_fps": np.full((rows, *(own.shape or ())), CHOSEN_BY_SETTING)}


def refuse_density(crop_fps: Any) -> None:
    """Raise `ValueError` where an action asks for a density that the environment would ignore."""
    if crop_fps is not None and not np.isnan(np.asarray(crop_fps, np.float64)).all():
        raise ValueError(
            "crop_fps asks for a density, and in this environment the setting says it: make it "
            "with crop_density=True (ParaVT-LongVideo-Density-v0), or leave crop_fps out"
        )


def check_batch(actions: Mapping[str, Any], rows: int) -> None:
    """Raise `ValueError` unless `actions` has every key with one entry for each of `rows`."""
    for key in ("crops", "crop_mask", "answer", "completion"):
        if not isinstance(actions, Mapping) or _length(actions.get(key)) != rows:
            raise ValueError(
                f"the batched action needs {key!r} with one entry for each of the {rows} rows: "
                "build it with spaces.batch_actions()"
            )


def _length(value: Any) -> int | None:
    """Entries of a list, a tuple or an array; None for what is a single value, a text included."""
    try:
        return None if isinstance(value, str) else len(value)
    except TypeError:
        return None


def unbatch(batch: Any, row: int, space: gym.Space | None = None) -> Any:
    """Row `row` of a batch of observations, actions or infos (views, not copies).

    Args:
        batch: Arrays, lists and tuples with an entry a row, in mappings of any depth. Where keys
            have masks, as in infos (`_turn` beside `turn`), what the row does not have is left out.
        row: Which one.
        space: What the row is to be a member of: it says the keys, and a number of a `Box` is an
            array without dimensions.

    >>> unbatch({"turn": np.array([3, 0]), "_turn": np.array([True, False])}, 1)
    {}
    """
    if isinstance(space, spaces.Dict):
        return {key: unbatch(batch[key], row, child) for key, child in space.spaces.items()}
    if isinstance(batch, Mapping):
        masked = any(f"_{key}" in batch for key in batch)
        return {
            key: unbatch(value, row)
            for key, value in batch.items()
            if not masked or (f"_{key}" in batch and batch[f"_{key}"][row])
        }
    if isinstance(space, spaces.Box) and isinstance(batch, np.ndarray):
        return batch[row, ...]
    return batch[row]


def empty_batch(space: gym.Space, rows: int) -> Any:
    """`rows` zero members of `space`, to be filled in place: arrays, dicts and lists of ""."""
    if isinstance(space, spaces.Dict):
        return {key: empty_batch(child, rows) for key, child in space.spaces.items()}
    if isinstance(space, UnicodeText):
        return [""] * rows
    shape = () if isinstance(space, spaces.Discrete) else space.shape
    return np.zeros((rows, *(shape or ())), space.dtype)


def seal_batch(batch: Mapping[str, Any]) -> Observation:
    """Turn the lists of a filled batch into tuples, as Gymnasium batches text."""
    return {
        key: seal_batch(value)
        if isinstance(value, Mapping)
        else (tuple(value) if isinstance(value, list) else value)
        for key, value in batch.items()
    }

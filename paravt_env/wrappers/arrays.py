"""Only arrays: questions as one-hot vectors and crops as choices, for classic RL libraries.

Between `LongVideoEnv` and libraries such as Stable-Baselines3: `ArrayObservation(ArrayAction(env))`
is what their checkers accept. The two conversions are `ArrayCodec` and `choices_to_action`, pure
functions that `agents.sb3.agent` shares, so that a trained policy sees the same arrays when it is
evaluated. Run the tests with `pytest tests/wrappers/test_wrappers.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from paravt_env.spaces import Action, Observation, empty_action
from paravt_env.task import OPTION_LETTERS, Task
from paravt_env.wrappers.unwrapped import long_video

KEPT = ("timestamps", "window", "crop_status", "turn", "must_answer")
NUMBERS = ("duration", "fps", "width", "height")

_OPTION = re.compile(rf"^[{OPTION_LETTERS[0]}-{OPTION_LETTERS[-1]}]\. (.*)$", re.MULTILINE)
_WORD = re.compile(r"[^\W_]+")


def choices_to_action(
    choices: Iterable[int], duration: float, segments: int, max_crops: int, max_crop_seconds: float
) -> Action:
    """The action behind the entries of `ArrayAction`.

    Args:
        choices: P entries, 0 for no call, else 1 + the part of the video; then 0 for no answer,
            else 1 + the option.
        duration: Of the video, seconds.
        segments: Equal parts that the video is cut into.
        max_crops: P.
        max_crop_seconds: Of a part that is longer, this much around its middle is cropped.

    >>> choices_to_action([2, 0, 3], 100.0, 4, 2, 20.0)["crops"].tolist()
    [[27.5, 47.5], [0.0, 0.0]]
    """
    *parts, letter = (int(entry) for entry in choices)
    action = empty_action(max_crops)
    length = duration / segments
    half = min(length, max_crop_seconds) / 2
    for row, part in enumerate(part for part in parts if part):
        middle = (part - 0.5) * length
        action["crops"][row] = middle - half, middle + half
        action["crop_mask"][row] = 1
    action["answer"] = OPTION_LETTERS[letter - 1] if letter else ""
    return action


@dataclass(frozen=True)
class ArrayCodec:
    """The vocabulary of some task sets, and observations as arrays over it. Plain data.

    Attributes:
        families: Question families.
        words: Words of the questions, in lower case.
        option_texts: Texts of all options.
    """

    families: tuple[str, ...]
    words: tuple[str, ...]
    option_texts: tuple[str, ...]

    @classmethod
    def of(cls, *tasksets: Iterable[Task]) -> ArrayCodec:
        """The vocabulary of all these tasks.

        Raises:
            ValueError: There are no tasks.
        """
        tasks = [task for tasks in tasksets for task in tasks]
        if not tasks:
            raise ValueError("a vocabulary needs at least one task")
        return cls(
            tuple(sorted({task.family for task in tasks})),
            tuple(sorted({word for task in tasks for word in _words(task.question)})),
            tuple(sorted({text for task in tasks for text in task.options})),
        )

    def space(self, inner: spaces.Dict) -> spaces.Dict:
        """The arrays' space for the observation space `inner` of a `LongVideoEnv`."""
        count, height, width, _ = inner["frames"].shape or ()
        options = len(OPTION_LETTERS) * max(1, len(self.option_texts))
        return spaces.Dict(
            {
                "frames": spaces.Box(0, 255, (count * height, width, 3), np.uint8),
                "family": spaces.Box(0, 1, (len(self.families),), np.int8),
                "words": spaces.Box(0, 1, (max(1, len(self.words)),), np.int8),
                "options": spaces.Box(0, 1, (options,), np.int8),
                **{key: inner[key] for key in KEPT},
                **{key: spaces.Box(0, np.inf, (1,), np.float32) for key in NUMBERS},
            }
        )

    def encode(self, observation: Observation, family: str) -> dict[str, np.ndarray]:
        """One observation as arrays.

        Raises:
            ValueError: A family, a word or an option that is not in the vocabulary.
        """
        question, texts = _split(str(observation["question"]))
        words = np.zeros(max(1, len(self.words)), np.int8)
        for word in _words(question):
            words[_place("word", word, self.words)] = 1
        options = np.zeros((len(OPTION_LETTERS), max(1, len(self.option_texts))), np.int8)
        for row, text in enumerate(texts):
            options[row, _place("option", text, self.option_texts)] = 1
        families = np.zeros(len(self.families), np.int8)
        families[_place("family", family, self.families)] = 1
        frames = observation["frames"]
        return {
            "frames": frames.reshape(-1, *frames.shape[2:]),
            "family": families,
            "words": words,
            "options": options.ravel(),
            **{key: observation[key] for key in KEPT},
            **{key: np.array([observation["video"][key]], np.float32) for key in NUMBERS},
        }


class ArrayAction(
    gym.ActionWrapper[Observation, np.ndarray, Action], gym.utils.RecordConstructorArgs
):
    """A `MultiDiscrete` action: P choices of a segment of the video, then the letter of the answer.

    The video is cut into `segments` equal parts; entry i < P is 0 for no call, else 1 + the part to
    crop (its middle, where the part is longer than a crop may be). The last entry is 0 for no
    answer, else 1 + the option.

    Args:
        env: The environment, whose questions all have options (mcq), no more than `options`.
        segments: Parts that the video is cut into.
        options: Answer letters, ten at most.

    Raises:
        ValueError: A size out of range, or a question that no letter answers.
    """

    def __init__(
        self,
        env: gym.Env[Observation, Action],
        segments: int = 32,
        options: int = len(OPTION_LETTERS),
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, segments=segments, options=options)
        gym.ActionWrapper.__init__(self, env)
        if segments < 1 or not 1 <= options <= len(OPTION_LETTERS):
            raise ValueError(
                f"segments must be at least 1 and options 1 to {len(OPTION_LETTERS)}, "
                f"not {segments} and {options}"
            )
        simulation = long_video(env).simulation
        _check_answerable([simulation.tasks[i] for i in range(len(simulation.tasks))], options)
        self._settings = simulation.settings
        self.segments = segments
        self.action_space = spaces.MultiDiscrete(
            [segments + 1] * self._settings.max_crops + [options + 1]
        )
        self._duration = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Reset, and remember how long the video is."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._duration = float(observation["video"]["duration"])
        return observation, info

    def action(self, action: np.ndarray) -> Action:
        """Segments to windows in seconds, the last entry to a letter."""
        settings = self._settings
        return choices_to_action(
            action, self._duration, self.segments, settings.max_crops, settings.max_crop_seconds
        )


class ArrayObservation(
    gym.ObservationWrapper[dict[str, np.ndarray], Any, Observation],
    gym.utils.RecordConstructorArgs,
):
    """A flat `Dict` of arrays: no text; the question is its family, words and options, as 0 and 1.

    Adds `family` (one of the task set's question families), `words` (which of the W words of all
    its questions occur in this one, in any order) and `options` (10 * V,), for each letter one of
    the V option texts of the task set; drops `question` and `feedback`; `video` becomes four arrays
    of shape (1,).

    Frames are stacked along the height, uint8 (F * H, W, 3), because image libraries take one
    picture.

    Args:
        env: The environment; nothing below it may change its observations.
        codec: The vocabulary, or its fields as plain data; by default that of the environment's own
            task set. To train on one split and play another, give both the vocabulary of both.
    """

    def __init__(
        self,
        env: gym.Env[Observation, Any],
        codec: ArrayCodec | Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        if isinstance(codec, Mapping):
            codec = ArrayCodec(**{name: tuple(words) for name, words in codec.items()})
        given = None if codec is None else asdict(codec)
        gym.utils.RecordConstructorArgs.__init__(self, codec=given)
        gym.ObservationWrapper.__init__(self, env)
        simulation = long_video(env).simulation
        tasks = simulation.tasks
        self.codec = codec or ArrayCodec.of(tasks[i] for i in range(len(tasks)))
        self.observation_space = self.codec.space(  # type: ignore[assignment]
            simulation.observation_space
        )

    def observation(self, observation: Observation) -> dict[str, np.ndarray]:
        """Arrays only."""
        return self.codec.encode(observation, long_video(self.env).task.family)


def _check_answerable(tasks: Sequence[Task], options: int) -> None:
    """Refuse tasks that cannot be answered by one of the first `options` letters."""
    odd = [task for task in tasks if not 0 < len(task.options) <= options]
    if odd:
        good = sorted({task.family for task in tasks} - {task.family for task in odd})
        restrict = f"tasks_kwargs={{'families': {good}}}" if good else "tasks_kwargs"
        raise ValueError(
            f"{len(odd)} of {len(tasks)} tasks cannot be answered by one of {options} letters, "
            f"task {odd[0].id!r} for one ({odd[0].kind}, {len(odd[0].options)} options): leave "
            f"them out of the manifest, or restrict the task set by {restrict}"
        )


def _split(prompt: str) -> tuple[str, list[str]]:
    """The question and the texts of its options, from `Task.prompt`."""
    question, first, rest = prompt.rpartition(f"\n{OPTION_LETTERS[0]}. ")
    return (question, _OPTION.findall(first + rest)) if first else (prompt, [])


def _words(question: str) -> list[str]:
    return _WORD.findall(question.lower())


def _place(what: str, name: str, vocabulary: tuple[str, ...]) -> int:
    if name not in vocabulary:
        raise ValueError(
            f"the {what} {name!r} is not in the vocabulary: build it of all splits that are "
            "played, ArrayCodec.of(train_tasks, test_tasks)"
        )
    return vocabulary.index(name)

"""Recordings: episodes in a folder that can be copied anywhere, written and read again.

Beside the journey: `wrappers/recorders.py` writes through `EpisodeWriter`, and `paravt replay
FOLDER` reads with `load_episodes`. Every episode is one line of `episodes.jsonl`; its frames are
picture files under `frames/`, named by their content, so that a group shares its overview.

A line is an object with `version`, `row`, `finished`, `task` (with the gold answer),
`video`, `turns` and, at the end of an episode, what its info said (`stop_reason`, `answer`,
`correct`, `reward_terms`, ...) and the `reward`. A turn is what was shown (`frames` with time,
window and file, `feedback`, `must_answer`) and the `action` that followed (`completion`, `answer`,
`crops` with their statuses); the last turn shows what came back and has no action. Numbers that
are not finite are null. Run the tests with `pytest tests/show/test_recording.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paravt_env.common.files import write_whole
from paravt_env.common.images import ENCODERS
from paravt_env.common.infos import plain
from paravt_env.common.names import known_name
from paravt_env.rewards import Turn
from paravt_env.spaces import PADDING, Observation
from paravt_env.task import Task

VERSION = 1
EPISODES, FRAMES = "episodes.jsonl", "frames"
_FILE = re.compile(rf"{FRAMES}/[0-9a-f]{{32}}\.({'|'.join(ENCODERS)})")
_END = (
    "stop_reason",
    "answer",
    "correct",
    "reward_terms",
    "compliant",
    "evidence_recall",
    "error",
)


class RecordingError(ValueError):
    """A folder holds no recording that this version can read; says file, line and why."""


class EpisodeWriter:
    """Writes the episodes of any number of rows, each when it ends.

    Args:
        folder: Made if it does not exist; a recording in it is continued.
        image: `png`, exactly the pixels of the observation, or `jpeg`, about a tenth of the bytes.
    """

    def __init__(self, folder: str | os.PathLike[str], image: str = "png") -> None:
        self.folder = Path(folder)
        self.image = known_name("image", image, ENCODERS)
        (self.folder / FRAMES).mkdir(parents=True, exist_ok=True)
        self._running: dict[int, dict[str, Any]] = {}

    def start(
        self, row: int, task: Task, info: Mapping[str, Any], observation: Observation | None
    ) -> None:
        """An episode of `row` starts; one that still runs there is written as unfinished.

        Without an observation (the video cannot be read) it is over at once.
        """
        self.abandon(row)
        self._running[row] = {
            "version": VERSION,
            "row": row,
            "finished": False,
            "task": {
                "id": task.id,
                "question": task.prompt,
                "kind": task.kind,
                "answer": task.answer,
                "evidence": task.evidence,
                "family": task.family,
                "category": task.category,
                "source": task.source,
            },
            "video": {"name": Path(task.medium).name},
            "frame_budget": info["frame_budget"],
            "reward": 0.0,
            "turns": [],
        }
        if observation is None:
            self._finish(row, info)
        else:
            self._running[row]["video"] |= observation["video"]
            self._see(row, observation)

    def turn(
        self,
        row: int,
        said: Turn,
        answer: str,
        result: tuple[Observation, float, bool],
        info: Mapping[str, Any],
    ) -> None:
        """A turn of `row` was played.

        Args:
            row: An episode of it has started.
            said: The turn in the transcript.
            answer: The answer in the action.
            result: What was shown next, the reward, and whether the episode ended.
            info: The row's info.
        """
        observation, reward, ended = result
        episode = self._running[row]
        episode["turns"][-1]["action"] = {
            "completion": said.parsed.text if said.parsed else "",
            "answer": answer,
            "crops": info["crops"],
        }
        episode["reward"] += float(reward)
        episode["frames_seen"] = info["frames_seen"]
        self._see(row, observation)
        if ended:
            self._finish(row, info)

    def abandon(self, row: int) -> None:
        """Write the running episode of `row`, if there is one, as unfinished."""
        if row in self._running:
            self._write(self._running.pop(row))

    def close(self) -> None:
        """Write every running episode as unfinished."""
        for row in list(self._running):
            self.abandon(row)

    def _see(self, row: int, observation: Observation) -> None:
        shown = np.flatnonzero(observation["window"] != PADDING)
        frames = [
            {
                "time": observation["timestamps"][i],
                "window": observation["window"][i],
                "file": self._save(observation["frames"][i]),
            }
            for i in shown
        ]
        self._running[row]["turns"].append(
            {
                "must_answer": bool(observation["must_answer"]),
                "feedback": observation["feedback"],
                "frames": frames,
                "action": None,
            }
        )

    def _save(self, frame: np.ndarray) -> str:
        digest = hashlib.blake2b(repr(frame.shape).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(frame).data)
        name = f"{FRAMES}/{digest.hexdigest()}.{self.image}"
        path = self.folder / name
        if not path.exists():
            write_whole(path, ENCODERS[self.image](frame))
        return name

    def _finish(self, row: int, info: Mapping[str, Any]) -> None:
        end = {key: info[key] for key in _END if key in info}
        self._write(self._running.pop(row) | end | {"finished": True})

    def _write(self, episode: dict[str, Any]) -> None:
        line = json.dumps(plain(episode), allow_nan=False)
        with (self.folder / EPISODES).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def load_episodes(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read a recording, numbered by `episode`; a frame's `file` is relative to the folder.

    Raises:
        RecordingError: There is none, or a line of it is broken or of another version.
    """
    path = Path(folder) / EPISODES
    if not path.is_file():
        raise RecordingError(f"{folder} holds no {EPISODES}: record with wrappers.RecordEpisodes")
    episodes: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            episode = json.loads(line)
        except json.JSONDecodeError as error:
            raise RecordingError(f"{path}:{number}: not JSON: {error}") from error
        problem = _problem(episode)
        if problem:
            raise RecordingError(f"{path}:{number}: {problem}")
        episodes.append({"episode": len(episodes), **episode})
    return episodes


def _problem(episode: Any) -> str:
    """What is wrong with one line, "" if nothing."""
    if not isinstance(episode, dict) or episode.get("version") != VERSION:
        return f"not an episode of version {VERSION}"
    try:
        for turn in episode["turns"]:
            for frame in turn["frames"]:
                if not _FILE.fullmatch(frame["file"]):
                    return f"{frame['file']!r} is not the name of a frame of this recording"
                float(frame["time"]), int(frame["window"])
            if turn["action"] is not None:
                for crop in turn["action"]["crops"]:
                    _start, _end = crop["window"]
        str(episode["task"]["id"]), str(episode["task"]["question"]), float(episode["reward"])
    except (KeyError, TypeError, ValueError) as error:
        return f"a field is missing or of the wrong type ({error!r})"
    return ""

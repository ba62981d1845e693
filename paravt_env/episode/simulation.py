"""What all rows share: task set, decoder, reward, and the moves `start` and `step` over many rows.

`env.py` is this with one row and `vector.py` with many, so the two cannot differ. The overviews of
all rows are decoded at once and so are all crops of a step; rows that ask for the same frames share
one decode (`FrameStore`). Run the tests with `pytest tests/env/test_vector.py`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from paravt_env.budget import FrameBudget, by_duration, draw_frames, make_budget
from paravt_env.crop import CodeRequest, CropRequest
from paravt_env.episode.actions import read_turn
from paravt_env.episode.code import CodeRunner
from paravt_env.episode.decoder import Decoder
from paravt_env.episode.episode import Episode, StopReason
from paravt_env.episode.overview import Overview, TaskVideoError, picture_overview
from paravt_env.rewards import Scored, compliance, lapses, make_preset, score_all, transcript_recall
from paravt_env.rewards.judge.scorer import LLMJudge
from paravt_env.rewards.terms.answer import Answer
from paravt_env.settings import REDRAWS, EnvSettings
from paravt_env.spaces import action_space, empty_batch, observation_space, seal_batch
from paravt_env.task import Task
from paravt_env.tasksets.base import relinked, unreadable_subtitles
from paravt_env.tasksets.mixture import draw_index
from paravt_env.video.pictures import Pictures
from paravt_env.video.types import VideoError


class Start(NamedTuple):
    """What a reset decided: the question and K, the number of overview frames.

    Where K depends on the video, `budget` says it once that is open; `frame_budget` is the cap.
    """

    task: Task
    frame_budget: int
    budget: FrameBudget | None = None

    @property
    def request(self) -> tuple[str, int | FrameBudget]:
        """What is opened: the file, and K or what says it."""
        return self.task.video, self.frame_budget if self.budget is None else self.budget

    def frames(self, overview: Overview) -> int:
        """K, now that the video is open."""
        return self.frame_budget if self.budget is None else len(overview.frames)


class Failure(NamedTuple):
    """A row whose video could not be read; it is finished, idles and is never scored."""

    start: Start
    error: TaskVideoError

    def info(self) -> dict[str, Any]:
        """The info of the failed reset: the usual keys, `stop_reason` and `error`."""
        return {
            "task_id": self.start.task.id,
            "frame_budget": self.start.frame_budget,
            "crops": [],
            "frames_seen": 0,
            "slow_frames": 0,
            "turn": 0,
            "stop_reason": StopReason.video_error,
            "error": str(self.error),
        }


class Step(NamedTuple):
    """What a step did to one row."""

    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


class Simulation:
    """Tasks, decoder and reward of an environment; holds no state of an episode.

    Args:
        settings: The environment's arguments.

    Attributes:
        tasks: The task set.
        budget: The distribution over K.
        preset: The reward.
        video: Decodes for all rows.
        video_errors: How often the video of which task could not be read.

    Raises:
        ValueError: The task set is empty, lacks the subtitles that were asked for, or has open
            questions that the reward would have judged, without a judge.
    """

    def __init__(self, settings: EnvSettings) -> None:
        self.settings = settings
        self.tasks = settings.load_tasks()
        if not len(self.tasks):
            raise ValueError(f"the task set {self.tasks.name!r} holds no task")
        every = range(len(self.tasks))
        if settings.subtitles and not any(_has_subtitles(self.tasks[i]) for i in every):
            raise ValueError(
                f"subtitles=True, but no task of {self.tasks.name!r} has any: check its folder of "
                "subtitles, or leave the argument out"
            )
        self.budget = make_budget(settings.frame_budget)
        self.preset = make_preset(settings.reward, settings.scorer)
        self._check_judge()
        self.video_errors: Counter[str] = Counter()
        self.observation_space = observation_space(
            settings.capacity,
            *settings.frame_size,
            settings.max_crops,
            settings.max_turns,
            quota=settings.crop_quota > 0,
            code=settings.tool == "code",
        )
        self.action_space = action_space(settings.max_crops, settings.crop_density)
        self.video = Decoder(settings)
        self.pictures = Pictures(settings.picture_pixels)
        self.code = (
            CodeRunner(settings, self.video, self.pictures) if settings.tool == "code" else None
        )

    @property
    def video_seconds(self) -> float:
        """Wall time spent waiting for decoded frames so far."""
        return self.video.seconds

    def close(self) -> None:
        """Stop decoding threads and sandboxes; a later use starts new ones."""
        self.video.close()
        if self.code is not None:
            self.code.close()

    def _check_judge(self) -> None:
        """Refuse open questions whose answers could not be scored."""
        answer = self.preset.terms["answer"][1]
        if not (isinstance(answer, Answer) and answer.open_metric == "judge" and not answer.scorer):
            return
        every = (self.tasks[i] for i in range(len(self.tasks)))
        odd = [task.id for task in every if task.kind == "open"]
        if odd:
            raise ValueError(
                f"{len(odd)} of {len(self.tasks)} tasks are open, {odd[0]!r} for one, and this "
                'reward has open answers judged: give reward={..., "judge": {"url": ..., "model": '
                '...}}, a scorer, or open_metric="f1"'
            )

    def _checked_budget(self, frame_budget: Any) -> int:
        whole = isinstance(frame_budget, int | np.integer) and not isinstance(frame_budget, bool)
        if not whole or not 0 <= frame_budget <= self.settings.capacity:
            raise ValueError(
                f"frame_budget must be a whole number from 0 to {self.settings.capacity}, the "
                f"frames that an observation holds, not {frame_budget!r}; for more, make the "
                "environment with a larger frame_budget"
            )
        return int(frame_budget)

    def draw(
        self,
        np_random: np.random.Generator,
        task_id: str | None = None,
        frame_budget: int | None = None,
    ) -> Start:
        """Draw the task, then K; what is given replaces the draw, which is made all the same."""
        index = draw_index(self.tasks, np_random)
        drawn = draw_frames(self.budget, np_random)
        task = self.tasks[index] if task_id is None else self.tasks.by_id(task_id)
        if frame_budget is not None:
            return Start(task, self._checked_budget(frame_budget))
        return Start(task, drawn, self.budget if by_duration(self.budget) else None)

    def begin(
        self,
        generators: Sequence[np.random.Generator],
        task_ids: Sequence[str | None],
        frame_budgets: Sequence[int | None],
    ) -> list[tuple[Episode | Failure, list[str]]]:
        """Draw and start all rows; with `on_video_error="redraw"`, those that fail once more.

        Returns:
            Of each row its episode (or what it failed with) and the tasks that were passed over.

        Raises:
            ValueError: A task or a budget that cannot be; no row has started then.
        """
        asked = list(zip(generators, task_ids, frame_budgets, strict=True))
        rows = self.start([self.draw(*row) for row in asked])
        passed: list[list[str]] = [[] for _ in rows]
        left = REDRAWS if self.settings.on_video_error == "redraw" else 0
        for _ in range(left):
            failed = []
            for i, row in enumerate(rows):
                if isinstance(row, Failure) and task_ids[i] is None:
                    failed.append(i)
                    passed[i].append(row.start.task.id)
            if not failed:
                break
            again = self.start([self.draw(*asked[i]) for i in failed])
            for i, row in zip(failed, again, strict=True):
                rows[i] = row
        return list(zip(rows, passed, strict=True))

    def start(self, starts: Sequence[Start]) -> list[Episode | Failure]:
        """Open the videos and decode the overviews of all rows at once, each distinct one once.

        A row whose files cannot be read (its subtitles too, where observations hold them) fails
        alone.
        """
        moved: list[Overview | VideoError | None] = [
            self._refused(start.task) or self._pictured(start) for start in starts
        ]
        asked = zip(starts, moved, strict=True)
        decoded = iter(self.video.overviews([start.request for start, seen in asked if not seen]))
        outcomes = [seen or next(decoded) for seen in moved]
        for start, outcome in zip(starts, outcomes, strict=True):
            self.video_errors[start.task.id] += isinstance(outcome, VideoError)
        return [
            Failure(start, TaskVideoError(start.task.id, outcome.path, outcome.reason))
            if isinstance(outcome, VideoError)
            else Episode(
                *(start.task, start.frames(outcome), outcome.video, outcome.frames, self.settings),
                sizes=outcome.sizes,
            )
            for start, outcome in zip(starts, outcomes, strict=True)
        ]

    def _pictured(self, start: Start) -> Overview | VideoError | None:
        """The images of a task that has any, or why one of them cannot be read."""
        if not start.task.images:
            return None
        try:
            budget = start.frame_budget
            return picture_overview(start.task.images, budget, self.pictures, self.settings)
        except VideoError as error:
            return error

    def _refused(self, task: Task) -> VideoError | None:
        """What keeps a task from being played, found before its video is opened."""
        paths = (task.video,) if task.video else task.images
        error = next(filter(None, (relinked(self.tasks, path) for path in paths)), None)
        if error is None and self.settings.subtitles:
            error = unreadable_subtitles(task)
        return error

    def step(
        self, rows: Mapping[int, Episode], actions: Mapping[int, Mapping[str, Any]]
    ) -> dict[int, Step]:
        """Play one turn of the running episodes in `rows`; all their crops are decoded together.

        Raises:
            ValueError: An action has the wrong shape or contradicts its completion; no row has
                moved then.
        """
        plans = {row: read_turn(actions[row], episode) for row, episode in rows.items()}
        requests = [
            call for plan in plans.values() for call in plan.calls if isinstance(call, CropRequest)
        ]
        coded = [
            (rows[row], call)
            for row, plan in plans.items()
            for call in plan.calls
            if isinstance(call, CodeRequest)
        ]
        done = iter(self.video.crops(requests))
        ran = iter(self.code.run(coded) if self.code is not None else ())
        outcomes = {}
        for row, episode in rows.items():
            crops = [
                next(done)
                if isinstance(call, CropRequest)
                else next(ran)
                if isinstance(call, CodeRequest)
                else call
                for call in plans[row].calls
            ]
            outcomes[row] = episode.advance(plans[row], crops)
        ended = [row for row, episode in rows.items() if episode.stop_reason is not None]
        results = score_all([rows[row].transcript for row in ended], self.preset)
        scored = dict(zip(ended, results, strict=True))
        steps = {}
        for row, episode in rows.items():
            reward, info = 0.0, episode.info()
            if row in scored:
                reward = 0.0 if scored[row].error else scored[row].terms["total"]
                info |= final_info(episode, scored[row])
            steps[row] = Step(reward, *outcomes[row], info)
        return steps

    def judge_totals(self) -> dict[str, float]:
        """Counters of the LLM judge so far, as metrics named `judge/...`; empty without one."""
        scorer = self.preset.scorer
        return scorer.totals() if isinstance(scorer, LLMJudge) else {}

    def observe(self, rows: Sequence[Episode | None]) -> dict[str, Any]:
        """The batched observation of `rows`; None is a row of zeros."""
        batch = empty_batch(self.observation_space, len(rows))
        for row, episode in enumerate(rows):
            if episode is not None:
                episode.observe(batch, row)
        return seal_batch(batch)


def _has_subtitles(task: Task) -> bool:
    """Whether a task brings subtitles, be they readable or not."""
    return unreadable_subtitles(task) is not None or len(task.subtitles) > 0


def redrawn(passed: Sequence[str]) -> dict[str, Any]:
    """What the info of a reset says of the tasks that were passed over; empty where none was."""
    return {"redrawn": list(passed)} if passed else {}


def final_info(episode: Episode, scored: Scored) -> dict[str, Any]:
    """What the info says in addition at the end; `error` is there where nothing was scored."""
    recall = transcript_recall(episode.transcript)
    info = {
        "reward_terms": scored.terms,
        "stop_reason": episode.stop_reason,
        "answer": episode.answer,
        "correct": scored.terms["answer"],
        "compliant": compliance(episode.transcript),
        "untagged": episode.untagged,
        "lapses": lapses(episode.transcript),
    }
    if not math.isnan(recall):
        info["evidence_recall"] = recall
    if scored.error:
        info |= {"stop_reason": StopReason.judge_error, "error": scored.error}
    return info

"""OpenEnv serves this environment: `paravt serve --openenv`, one episode a WebSocket session.

All sessions share one simulation a split, so they share decoded frames. A session that disappears
frees its place; an action that cannot be read is an error of that session, whose episode has not
moved. Every step names its episode: after a time-out OpenEnv's client opens a new session without a
word, and a step in it must not pass for one of the old episode. Only plain Python values are sent.
Tests, over real sockets: `make test-adapters`.
"""

from __future__ import annotations

import base64
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
from gymnasium.utils import seeding
from pydantic import Field

from paravt_env.common.images import ENCODERS
from paravt_env.common.infos import plain
from paravt_env.common.names import known_name
from paravt_env.episode.episode import Episode
from paravt_env.episode.simulation import Failure, Simulation, redrawn
from paravt_env.protocol.parser import action_of, parse
from paravt_env.settings import EnvSettings
from paravt_env.spaces import PADDING, Action, empty_action, unbatch

try:
    from openenv.core.env_server import http_server, types
    from openenv.core.env_server.interfaces import Environment
except ImportError as error:
    raise ImportError(f"OpenEnv is not there ({error}): pip install 'paravt[openenv]'") from error

MAX_TEXT = 1_000_000
"""Characters of a completion or an answer."""
CLIENT_LIMIT = 100 * 2**20
"""Bytes of the largest message that OpenEnv's client takes unless it is told otherwise."""
NOT_COMPARED = {
    *("tasks", "split", "tasks_kwargs", "scorer", "frame_budget", "video_workers", "backend"),
    *("video_isolation", "disk_cache_bytes", "crop_timeout", "reset_timeout", "evidence"),
    "on_video_error",
}
"""Settings in which a server may differ from its clients."""


class CropAction(types.Action):
    """A turn: what a model wrote, or windows and an answer."""

    episode_id: str = Field(max_length=64, description="of the observation that is answered")
    completion: str = Field("", max_length=MAX_TEXT, description="a model's text, with its tags")
    answer: str = Field("", max_length=MAX_TEXT)
    crops: list[tuple[float | None, float | None]] = Field(
        default_factory=list, max_length=1000, description="windows in seconds"
    )


class CropObservation(types.Observation):
    """What is seen; `metadata` is the environment's info, and no business of the agent."""

    episode_id: str
    question: str = ""
    picture: str = Field(description="png or jpeg")
    frames: list[str] = Field(default_factory=list, description="picture files in base64")
    timestamps: list[float] = Field(default_factory=list, description="seconds, one a frame")
    window: list[int] = Field(
        default_factory=list, description="0: overview; i: the i-th crop of the turn"
    )
    video: dict[str, float] = Field(default_factory=dict)
    turn: int = 0
    must_answer: bool = False
    feedback: str = ""
    subtitles: str = ""


class CropState(types.State):
    """Where a session is, and what it plays by."""

    split: str = ""
    task_id: str = ""
    frame_budget: int = 0
    done: bool = False
    settings: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Served:
    """What all sessions share.

    Attributes:
        simulations: By split; the first one is the default.
        picture: `png`, bit by bit what was decoded, or `jpeg`, about a tenth of the bytes.
        max_bytes: Of the pictures of one observation.
    """

    simulations: Mapping[str, Simulation]
    picture: str = "jpeg"
    max_bytes: int = 64 * 2**20

    def __post_init__(self) -> None:
        """Refuse what could not be sent; start the decoding threads, before sessions race."""
        known_name("picture", self.picture, ENCODERS)
        if not 0 < self.max_bytes < CLIENT_LIMIT:
            raise ValueError(
                f"the pictures of an observation may have up to {CLIENT_LIMIT} bytes, the limit "
                f"of OpenEnv's client for a message, not {self.max_bytes}"
            )
        for simulation in self.simulations.values():
            size = simulation.settings.frame_size
            if self.picture == "jpeg" and any(side % 2 for side in size):
                raise ValueError(f"a JPEG needs even sides: frame_size is {size}; send png")
            _ = simulation.video.store

    def simulation(self, split: str | None) -> tuple[str, Simulation]:
        """The simulation of a split and its name."""
        name = next(iter(self.simulations)) if split is None else split
        return name, self.simulations[known_name("split", name, self.simulations)]


class CropEnvironment(Environment[CropAction, CropObservation, CropState]):
    """The episodes of one session, one after the other."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, served: Served) -> None:
        super().__init__()
        self._served = served
        self._split, self._simulation = served.simulation(None)
        self._row: Episode | Failure | None = None
        self._episode_id = ""
        self._random = seeding.np_random()[0]

    def reset(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        split: str | None = None,
        index: int | None = None,
        task_id: str | None = None,
        frame_budget: int | None = None,
        **unknown: Any,
    ) -> CropObservation:
        """Start an episode.

        Args:
            seed: Of the draws of task and K; None continues the session's own.
            episode_id: Its name, which every step must give; None makes one.
            split: One of `list_splits`; None is the first.
            index: Place of the task in the split; None draws it, or takes `task_id`.
            task_id: The task by its id.
            frame_budget: K; None draws it.
            **unknown: Refused.

        Raises:
            ValueError: A name or a number that does not exist; what ran before is over, too.
        """
        self._row = None
        for name in unknown:
            names = ("seed", "episode_id", "split", "index", "task_id", "frame_budget")
            known_name("reset argument", name, names)
        self._split, self._simulation = self._served.simulation(split)
        if index is not None:
            if task_id is not None:
                raise ValueError("give index or task_id, not both")
            task_id = self._task_at(index)
        if seed is not None:
            self._random = seeding.np_random(seed)[0]
        self._episode_id = episode_id or uuid.uuid4().hex
        ((self._row, passed),) = self._simulation.begin([self._random], [task_id], [frame_budget])
        info = self._row.info() if isinstance(self._row, Episode) else self._failure()
        return self._observation(0.0, info | redrawn(passed))

    def step(
        self, action: CropAction, timeout_s: float | None = None, **unknown: Any
    ) -> CropObservation:
        """Play one turn.

        Args:
            action: The turn.
            timeout_s: Not looked at: `crop_timeout` of the settings bounds a step.
            **unknown: Not looked at; OpenEnv hands none over on a session.

        Raises:
            ValueError: It is of another episode, or cannot be read; the episode has not moved.
        """
        row = self._row
        if not isinstance(row, Episode) or action.episode_id != self._episode_id:
            raise ValueError(
                f"this session plays no episode {action.episode_id!r}: a connection was lost, or "
                "reset() was never called; start it again with reset()"
            )
        if row.stop_reason is not None:
            raise ValueError(f"episode {action.episode_id!r} is over: call reset()")
        crops = self._simulation.settings.max_crops
        step = self._simulation.step({0: row}, {0: _read(action, crops)})[0]
        return self._observation(step.reward, step.info, step.terminated or step.truncated)

    @property
    def state(self) -> CropState:
        """Where the session is; no gold answer in it."""
        row = self._row
        info = {} if row is None else row.info()
        where = {name: info[name] for name in ("task_id", "frame_budget") if name in info}
        return CropState(
            episode_id=self._episode_id or None,
            step_count=row.turn if isinstance(row, Episode) else 0,
            split=self._split,
            done=isinstance(row, Failure) or (row is not None and row.stop_reason is not None),
            settings=compared(self._simulation.settings),
            **where,
        )

    def get_metadata(self) -> types.EnvironmentMetadata:
        """Name, what it is, version."""
        return types.EnvironmentMetadata(
            name="ParaVT-LongVideo-v0",
            description="Answer a question about a long video by looking at some moments closely.",
            version=version("paravt"),
        )

    def list_splits(self) -> list[str]:
        """The splits that are served."""
        return list(self._served.simulations)

    def num_tasks(self, split: str) -> int:
        """Tasks of a split."""
        return len(self._served.simulation(split)[1].tasks)

    def get_task(self, split: str, index: int) -> dict[str, Any]:
        """A task without its answer.

        Raises:
            IndexError: No such place.
        """
        self._split, self._simulation = self._served.simulation(split)
        task = self._simulation.tasks.by_id(self._task_at(index))
        names = ("id", "question", "kind", "category", "source", "family")
        return {name: getattr(task, name) for name in names} | {
            "index": index,
            "options": list(task.options),
        }

    def close(self) -> None:
        """Forget the episode; what all sessions share stays."""
        self._row = None

    def _task_at(self, index: int) -> str:
        ids = self._simulation.tasks.ids
        if not 0 <= index < len(ids):
            raise IndexError(f"index {index}: the split {self._split!r} has {len(ids)} tasks")
        return ids[index]

    def _failure(self) -> dict[str, Any]:
        """The info of a video that cannot be read; the path is not the client's business."""
        assert isinstance(self._row, Failure)
        error = self._row.error
        return self._row.info() | {"error": f"task {error.task_id!r}: {error.reason}"}

    def _observation(
        self, reward: float, info: dict[str, Any], done: bool = False
    ) -> CropObservation:
        row = self._row
        seen: dict[str, Any] = {"picture": self._served.picture, "episode_id": self._episode_id}
        if isinstance(row, Episode):
            batch = self._simulation.observe([row])
            view = unbatch(batch, 0, self._simulation.observation_space)
            shown = view["window"] != PADDING
            seen |= self._pictures(view["frames"][shown])
            seen |= {"timestamps": view["timestamps"][shown].tolist()}
            seen |= {"window": view["window"][shown].tolist()}
            seen |= {name: str(view[name]) for name in ("question", "feedback", "subtitles")}
            seen |= {"video": {name: float(value) for name, value in view["video"].items()}}
            seen |= {"turn": int(view["turn"]), "must_answer": bool(view["must_answer"])}
        done = done or isinstance(row, Failure)
        return CropObservation(done=done, reward=float(reward), metadata=plain(info), **seen)

    def _pictures(self, frames: np.ndarray) -> dict[str, list[str]]:
        encode = ENCODERS[self._served.picture]
        pictures = [base64.b64encode(encode(frame)).decode("ascii") for frame in frames]
        size = sum(map(len, pictures))
        if size > self._served.max_bytes:
            self._row = None  # its next step would answer an observation that no client has seen
            raise ValueError(
                f"the {len(pictures)} pictures of the observation have {size} bytes, more than "
                f"{self._served.max_bytes}: serve jpeg, a smaller frame_size, or raise --max-mb; "
                "the episode is over"
            )
        return {"frames": pictures}


def compared(settings: EnvSettings) -> dict[str, Any]:
    """The settings that a server and its player must share, as JSON holds them."""
    named = {field.name for field in fields(EnvSettings)} - NOT_COMPARED
    return {name: plain(getattr(settings, name)) for name in sorted(named)}


def _read(action: CropAction, max_crops: int) -> Action:
    """The environment's action.

    Raises:
        ValueError: Too many windows, or windows and an answer beside a completion.
    """
    if action.completion:
        if action.crops or action.answer:
            raise ValueError("a completion says crops and answer itself: leave both out")
        return action_of(parse(action.completion), max_crops)
    if len(action.crops) > max_crops:
        raise ValueError(f"{len(action.crops)} crops: a turn takes {max_crops} at most")
    read = empty_action(max_crops)
    for place, (start, end) in enumerate(action.crops):
        read["crops"][place] = [math.nan if t is None else t for t in (start, end)]
        read["crop_mask"][place] = 1
    return {**read, "answer": action.answer}


class Limited:
    """Refuses HTTP requests with a larger body; WebSocket messages are the server's to limit."""

    def __init__(self, app: Callable, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Any, receive: Callable, send: Callable) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._limit:
                await send({"type": "http.response.start", "status": 413, "headers": []})
                await send({"type": "http.response.body", "body": b"the request is too large"})
                return
        whole = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Any:
            return whole.pop() if whole else await receive()

        await self._app(scope, replay, send)


def make_app(served: Served, sessions: int, max_message_bytes: int) -> Any:
    """The application: OpenEnv's own, with its limits.

    Args:
        served: What is played.
        sessions: Most episodes at a time; one more connection gets a capacity error.
        max_message_bytes: Of an HTTP request.
    """
    app = http_server.create_fastapi_app(
        partial(CropEnvironment, served),
        CropAction,
        CropObservation,
        concurrency_config=types.ConcurrencyConfig(
            max_concurrent_envs=sessions, session_timeout=600.0
        ),
        env_name="paravt",
        state_cls=CropState,
        mode="simulation",
    )
    app.add_middleware(Limited, limit=max_message_bytes)
    return app


def served_of(settings: EnvSettings, splits: Sequence[str], picture: str, max_bytes: int) -> Served:
    """What is served of these settings: one simulation a split."""
    names = splits or [settings.split]
    simulations = {name: Simulation(replace(settings, split=name)) for name in names}
    return Served(simulations, picture, max_bytes)


def serve(app: Any, host: str, port: int, max_message_bytes: int) -> None:
    """Serve until interrupted."""
    import uvicorn

    uvicorn.run(app, host=host, port=port, ws_max_size=max_message_bytes, log_level="warning")

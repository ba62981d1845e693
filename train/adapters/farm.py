"""Decode farms: N remote OpenEnv servers as one vector environment, for our own trainer.

    RemoteVectorEnv(64, ["http://a:8000", "http://b:8000"], tasks="synthetic")

In a recipe: `env.servers: [...]`. Tasks and K are drawn here, exactly as a local environment draws
them; frames are decoded and answers scored on the servers (`paravt serve --openenv`, with the same
recipe), and each episode is kept here as the one that would have run. With pictures as PNG the two
are equal bit by bit. A server that is lost, slow or wrong ends its own rows as `server_error`; the
next reset goes to the servers that answer. Tests, over real sockets: `make test-adapters`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import copy
import threading
import time
import uuid
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from paravt_env.common.images import decode_picture
from paravt_env.crop import CodeRequest, CropRequest, CropResult, CropStatus
from paravt_env.episode.actions import read_turn
from paravt_env.episode.episode import Episode, StopReason, TurnPlan
from paravt_env.episode.overview import TaskVideoError
from paravt_env.episode.reset_options import rows_of
from paravt_env.episode.simulation import Failure, Simulation, Start, Step, final_info
from paravt_env.rewards import Scored
from paravt_env.spaces import Observation
from paravt_env.vector import LongVideoVectorEnv
from paravt_env.video.types import Frames, VideoInfo
from train.adapters.openenv import CropObservation, compared  # says what to install

from openenv import GenericEnvClient  # isort: skip
from pydantic import ValidationError  # isort: skip
from websockets.exceptions import WebSocketException  # isort: skip

MARGIN = 30.0
"""Seconds that a server may take beyond the time-outs of its own decoding."""

LOST = (OSError, RuntimeError, TimeoutError, ValueError, WebSocketException)
"""What a server that is gone, full, slow or wrong makes OpenEnv's client, or its reader, raise."""


class Lost(Failure):
    """A row whose server could not start it: finished, idle, never scored."""

    def info(self) -> dict[str, Any]:
        """The info of the failed reset."""
        said = {"stop_reason": StopReason.server_error, "error": self.error.reason}
        return super().info() | said


@dataclass
class Session:
    """One place on a server, and the episode that is played in it."""

    address: str
    client: GenericEnvClient
    episode: Episode | None = None
    episode_id: str = ""
    free: bool = False

    def rest(self) -> None:
        """The episode is over, or given up: another one may take the place."""
        self.episode, self.free = None, True


class RemoteSimulation(Simulation):
    """A simulation whose frames and rewards come from servers.

    Args:
        local: The same settings here: tasks, budget, spaces and the weights of the reward.
        servers: Addresses, such as `http://10.0.0.7:8000`.
    """

    def __init__(self, local: Simulation, servers: Sequence[str]) -> None:
        vars(self).update(vars(local))
        if not servers:
            raise ValueError("a decode farm needs the address of a server at least")
        if local.settings.tool == "code":
            raise ValueError(
                "a decode farm plays crops; code runs where the episode is: leave env.servers out, "
                "or set env.tool=crop"
            )
        self.servers = tuple(servers)
        self.sessions: list[Session] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="farm", daemon=True)
        self._thread.start()

    def start(self, starts: Sequence[Start]) -> list[Episode | Failure]:
        """Start an episode each, in sessions that are free, or new ones on the emptiest servers."""
        rows = self._together([self._start(start) for start in starts])
        for row in rows:
            if isinstance(row, Failure) and not isinstance(row, Lost):
                self.video_errors[row.start.task.id] += 1
        return rows

    def step(
        self, rows: Mapping[int, Episode], actions: Mapping[int, Mapping[str, Any]]
    ) -> dict[int, Step]:
        """Play one turn of the rows, each on its server, all at once.

        Raises:
            ValueError: As for a local simulation; nothing was sent.
        """
        plans = {row: read_turn(actions[row], episode) for row, episode in rows.items()}
        steps = self._together(
            [self._step(episode, plans[row], actions[row]) for row, episode in rows.items()]
        )
        return dict(zip(rows, steps, strict=True))

    def release(self, episode: Any) -> None:
        """The episode is given up: its session takes another one."""
        for session in self.sessions:
            if episode is not None and session.episode is episode:
                session.rest()

    def close(self) -> None:
        """Leave the servers, for good."""
        super().close()
        if not self._loop.is_closed():
            self._together([self._leave(session) for session in self.sessions])
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _together(self, work: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
        if self._loop.is_closed():
            for one in work:
                one.close()
            raise RuntimeError("the decode farm is closed: make a new environment")
        began = time.perf_counter()

        async def all_of() -> list[Any]:
            return await asyncio.gather(*work)

        done = asyncio.run_coroutine_threadsafe(all_of(), self._loop).result()
        self.video.seconds += time.perf_counter() - began
        return done

    async def _start(self, start: Start) -> Episode | Failure:
        reasons: dict[str, str] = {}
        while len(reasons) < len(self.servers):
            session = self._free(reasons)
            known = session.episode_id != ""  # an old session may be gone, and its server not
            try:
                if not known:
                    await self._meet(session)
                return await self._begin(session, start)
            except LOST as error:
                if not known:
                    reasons[session.address] = str(error) or type(error).__name__
                await self._leave(session)
        path = start.task.video
        reason = "; ".join(f"{address}: {said}" for address, said in reasons.items())
        return Lost(start, TaskVideoError(start.task.id, path, reason))

    def _free(self, failed: Mapping[str, str]) -> Session:
        """A session without an episode on a server that has not failed this start; it is taken."""
        for session in self.sessions:
            if session.free and session.address not in failed:
                session.free = False
                return session
        load = Counter(session.address for session in self.sessions)
        address = min((a for a in self.servers if a not in failed), key=lambda a: load[a])
        patience = MARGIN + max(self.settings.reset_timeout, self.settings.crop_timeout)
        client = GenericEnvClient(base_url=address, message_timeout_s=patience)
        session = Session(address, client)
        self.sessions.append(session)
        return session

    async def _meet(self, session: Session) -> None:
        """Connect, and compare what is played there with what is played here."""
        await session.client.connect()
        theirs = (await session.client.state()).get("settings")
        ours = compared(self.settings)
        if theirs != ours:
            theirs = theirs if isinstance(theirs, dict) else {}
            other = [name for name in ours if theirs.get(name) != ours[name]]
            said = ", ".join(f"{n}: {theirs.get(n)!r} there, {ours[n]!r} here" for n in other)
            raise ValueError(f"it plays by other settings ({said}): serve the same recipe")

    async def _begin(self, session: Session, start: Start) -> Episode | Failure:
        session.episode_id = uuid.uuid4().hex
        result = await session.client.reset(
            episode_id=session.episode_id,
            split=self.settings.split,
            task_id=start.task.id,
            frame_budget=start.frame_budget,
        )
        seen = _read(result, session.episode_id)
        if seen.done:
            session.rest()
            reason = str(seen.metadata.get("error", "the episode is over at its start"))
            reason = reason.removeprefix(f"task {start.task.id!r}: ")
            return Failure(start, TaskVideoError(start.task.id, start.task.video, reason))
        try:
            video = VideoInfo(
                float(seen.video["duration"]), float(seen.video["fps"]),
                int(seen.video["width"]), int(seen.video["height"]),
            )  # fmt: skip
        except KeyError as error:
            raise ValueError(f"its reply lacks {error} of the video") from error
        overview = self._frames(seen, 0)
        if len(overview) != start.frame_budget:
            raise ValueError(f"{len(overview)} overview frames instead of {start.frame_budget}")
        episode = Episode(start.task, start.frame_budget, video, overview, self.settings)
        session.episode = episode
        return episode

    async def _step(self, episode: Episode, plan: TurnPlan, action: Mapping[str, Any]) -> Step:
        session = next((one for one in self.sessions if one.episode is episode), None)
        if session is None:
            return self._lost(episode, "the episode was given up")
        try:
            said = _payload(action) | {"episode_id": session.episode_id}
            seen = _read(await session.client.step(said), session.episode_id)
            crops = [
                self._crop(seen, place, call) if isinstance(call, CropRequest) else call
                for place, call in enumerate(plan.calls)
                if not isinstance(call, CodeRequest)
            ]
            ended = _ends(episode, plan, crops)
            if ended != seen.done:
                raise ValueError("it does not agree on whether the episode is over")
            scored = self._scored(seen) if ended else None
        except LOST as error:
            await self._leave(session)
            return self._lost(episode, f"{session.address}: {str(error) or type(error).__name__}")
        outcome = episode.advance(plan, crops)
        info = episode.info()
        if scored is None:
            return Step(0.0, *outcome, info)
        session.rest()
        reward = 0.0 if scored.error else scored.terms["total"]
        return Step(reward, *outcome, info | final_info(episode, scored))

    def _lost(self, episode: Episode, reason: str) -> Step:
        said = {"stop_reason": StopReason.server_error, "error": reason}
        return Step(0.0, False, True, {**episode.info(), "crops": [], **said})

    async def _leave(self, session: Session) -> None:
        """Give a session up; OpenEnv's client would silently continue in a new one."""
        if session in self.sessions:
            self.sessions.remove(session)
        with suppress(*LOST):  # it may be gone already, which is why it is left
            await session.client.close()

    def _frames(self, seen: CropObservation, window: int) -> Frames:
        places = [i for i, one in enumerate(seen.window) if one == window]
        size = self.settings.frame_size
        try:
            images = [
                decode_picture(base64.b64decode(seen.frames[i], validate=True), size)
                for i in places
            ]
        except binascii.Error as error:
            raise ValueError(f"a picture is no base64: {error}") from error
        times = np.array([seen.timestamps[i] for i in places], float)
        if not np.isfinite(times).all():
            raise ValueError("a frame's time is not finite")
        return Frames(images, times) if images else Frames.empty(size)

    def _crop(self, seen: CropObservation, place: int, call: CropRequest) -> CropResult:
        """What became of a call that was sent."""
        told = seen.metadata.get("crops")
        one = told[place] if isinstance(told, list) and place < len(told) else None
        if not isinstance(one, dict):
            raise ValueError(f"its reply says nothing of crop {place + 1}")
        status = CropStatus(str(one.get("status")))
        if status is not CropStatus.ok:
            return CropResult(call.window, None, status, str(one.get("message", "")))
        frames = self._frames(seen, place + 1)
        if not 0 < len(frames) <= self.settings.frames_per_crop:
            raise ValueError(f"crop {place + 1} has {len(frames)} frames")
        return CropResult(call.window, call.clipped, status, "", frames)

    def _scored(self, seen: CropObservation) -> Scored:
        """The reward, as the server counts it."""
        told, error = seen.metadata.get("reward_terms"), str(seen.metadata.get("error", ""))
        names = [*self.preset.used, "total"]
        if error:
            return Scored(dict.fromkeys(names, float("nan")), error)
        if not isinstance(told, dict) or set(told) != set(names):
            raise ValueError(f"its reward is {told!r}, not one of {', '.join(names)}")
        terms = {name: float(told[name]) for name in names if told[name] is not None}
        if len(terms) < len(names) or not np.isfinite(list(terms.values())).all():
            raise ValueError(f"its reward is not finite: {told!r}")
        return Scored(terms)


class RemoteVectorEnv(LongVideoVectorEnv):
    """`LongVideoVectorEnv` whose rows are played on servers.

    Args:
        num_envs: Rows (B), over all servers.
        servers: Their addresses.
        **settings: As for `LongVideoVectorEnv`; the servers must have the same.
    """

    simulation: RemoteSimulation

    def __init__(self, num_envs: int, servers: Sequence[str], **settings: Any) -> None:
        super().__init__(num_envs, **settings)
        self.simulation = RemoteSimulation(self.simulation, servers)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """As of `LongVideoVectorEnv`; running episodes of the rows give their sessions up first."""
        for row in np.flatnonzero(rows_of((options or {}).get("reset_mask"), self.num_envs)):
            self.simulation.release(self._rows[row])
        return super().reset(seed=seed, options=options)


def _read(result: Any, episode_id: str) -> CropObservation:
    """A server's reply, checked.

    Raises:
        ValueError: It is none of ours, or of another episode.
    """
    try:
        told = {**result.observation, "done": result.done, "reward": result.reward}
        seen = CropObservation.model_validate(told)
    except (ValidationError, TypeError) as error:
        raise ValueError(f"its reply cannot be read: {error}") from error
    if seen.episode_id != episode_id:
        raise ValueError(f"its reply is of episode {seen.episode_id!r}")
    if not len(seen.frames) == len(seen.timestamps) == len(seen.window):
        raise ValueError("its reply has not one time and one window for each frame")
    return seen


def _ends(episode: Episode, plan: TurnPlan, crops: Sequence[CropResult]) -> bool:
    """Whether the turn ends the episode, which does not move."""
    ahead = copy.copy(episode)
    ahead.turns = list(episode.turns)
    return any(ahead.advance(plan, crops))


def _payload(action: Mapping[str, Any]) -> dict[str, Any]:
    """The action as plain data: the text, or windows (None for what is not finite) and answer."""
    if action["completion"]:
        return {"completion": action["completion"]}
    asked = np.asarray(action["crops"], float)[np.asarray(action["crop_mask"]).astype(bool)]
    windows = [[t if np.isfinite(t) else None for t in one] for one in asked.tolist()]
    return {"crops": windows, "answer": action["answer"]}

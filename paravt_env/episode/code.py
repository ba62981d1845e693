"""Run the code of a turn: every row's in its own session, side by side, each with its status.

The counterpart of `decode_crops.py` where the environment's tool is code. Sessions begin with an
episode's first code and end with the episode; where code cannot be isolated there is no
environment. Run the tests with `pytest tests/env/test_code.py`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from paravt_env.crop import NO_WINDOW, CodeRequest, CodeRun, CropResult, CropStatus
from paravt_env.episode.decoder import Decoder
from paravt_env.episode.episode import Episode
from paravt_env.episode.media import TaskMedia
from paravt_env.sandbox.isolation import check
from paravt_env.sandbox.limits import CodeLimits, CodeReply
from paravt_env.sandbox.pool import SandboxPool
from paravt_env.settings import EnvSettings
from paravt_env.video.pictures import Pictures
from paravt_env.video.types import Frames

MESSAGES = {
    CropStatus.code_error: "the code raised an error",
    CropStatus.denied: "there are no files, no network and no processes",
    CropStatus.out_of_memory: "the code wanted more memory than there is",
    CropStatus.output_limit: "the code wrote or showed more than a turn may",
    CropStatus.timeout: "the code took too long: names that were set are gone",
    CropStatus.crashed: "the process of the code ended: names that were set are gone",
}


class CodeRunner:
    """Runs code for the rows of an environment.

    Its sandboxes are started on first use, in the process that uses them, and are left out of
    pickles and forks; a copy's sessions start from nothing.

    Args:
        settings: The environment's arguments.
        decoder: Decodes the frames that code asks for.
        pictures: Reads the pictures that it asks for.

    Raises:
        SandboxError: Code cannot be isolated on this machine.
    """

    def __init__(self, settings: EnvSettings, decoder: Decoder, pictures: Pictures) -> None:
        check()
        self.settings, self.decoder, self.pictures = settings, decoder, pictures
        self._pool: SandboxPool | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the sandboxes."""
        return {**self.__dict__, "_pool": None}

    @property
    def counts(self) -> dict[str, int]:
        """Runs so far in this process, by status."""
        return {} if self._pool is None else dict(self._pool.counts)

    def run(self, rows: Sequence[tuple[Episode, CodeRequest]]) -> list[CropResult]:
        """Run the code of many rows, one piece a row; the results in their order.

        Raises:
            SandboxError: A sandbox could not be started.
        """
        if not rows:
            return []
        pool = self._running()
        for episode, _ in rows:
            if episode.session is None:
                episode.session = pool.session(self._media(episode))
        sessions = [(episode.session, request.code) for episode, request in rows]
        replies = pool.run_all([(one, code) for one, code in sessions if one is not None])
        return [
            self._result(episode, request, reply)
            for (episode, request), reply in zip(rows, replies, strict=True)
        ]

    def close(self) -> None:
        """Stop the sandboxes that wait; a later use starts new ones."""
        if self._pool is not None and self._pool.process == os.getpid():
            self._pool.close()
        self._pool = None

    def _running(self) -> SandboxPool:
        settings = self.settings
        if self._pool is None or self._pool.process != os.getpid():
            limits = CodeLimits(
                seconds=settings.code_seconds,
                memory=settings.code_memory,
                characters=settings.code_characters,
                pictures=settings.frames_per_crop,
                size=settings.frame_size,
                frames=settings.code_frames,
            )
            workers = settings.code_workers
            self._pool = SandboxPool(limits, spare=workers, parallel=workers)
        return self._pool

    def _media(self, episode: Episode) -> TaskMedia:
        return TaskMedia(
            *(episode.task, episode.video, self.settings, self.decoder.store, self.pictures)
        )

    def _result(self, episode: Episode, request: CodeRequest, reply: CodeReply) -> CropResult:
        """What a run brought, as the result of a call."""
        status = CropStatus(str(reply.status))
        media = episode.session.media if episode.session is not None else None
        windows: tuple = ()
        if isinstance(media, TaskMedia):
            windows, media.windows = tuple(media.windows), []
        frames = None
        if len(reply.pictures):
            frames = Frames(reply.pictures, np.nan_to_num(reply.times, nan=0.0))
        digest = hashlib.blake2b(reply.text.encode("utf-8", "replace"), digest_size=16)
        digest.update(reply.pictures.tobytes())
        ran = CodeRun(request.code, reply.text, windows, digest.digest())
        message = MESSAGES.get(status, "")
        return CropResult(NO_WINDOW, None, status, message, frames, ran=ran)

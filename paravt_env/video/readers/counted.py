"""Frames by their number in the decoder's order: for files without presentation times.

The way of `pyav.py` for the files that `order.py` describes. Run its tests:
`python -m pytest tests/video/test_video_kinds.py`.
"""

from __future__ import annotations

import av
import numpy as np

from paravt_env.video.deadline import check_deadline
from paravt_env.video.readers.order import Restart
from paravt_env.video.readers.track import Found, Track
from paravt_env.video.types import Size, VideoError


class CountedRuns(Track):
    """Decodes the frames on screen at given ticks by counting what the decoder returns."""

    def _decode_in_order(
        self, ticks: set[int], size: Size, deadline: float | None, slow: set[int]
    ) -> Found:
        """Frames by their number in the decoder's order, from the nearest restart or the start."""
        assert self._order is not None
        shown = {tick: self._order.at(tick) for tick in ticks}
        wanted = {frame for frame, _ in shown.values()}
        frames: dict[int, np.ndarray] = {}
        nearest = self._order.restart(min(wanted))
        for restart in dict.fromkeys((nearest, self._order.restarts[0])):
            try:
                frames = self._count_from(restart, wanted, size, deadline)
            except av.FFmpegError as error:
                failed = f" ({error.strerror})"
            else:
                failed = ""
            if wanted <= frames.keys():
                if restart != nearest:
                    slow |= ticks
                return {tick: (start, frames[frame]) for tick, (frame, start) in shown.items()}
        lost = min(tick for tick, (frame, _) in shown.items() if frame not in frames)
        at = float((lost - self._origin) * self._base)
        reason = f"no intact frame at {at:.2f} s{failed}: the file is truncated or damaged"
        raise VideoError(self.path, f"{reason}; copy or download it again")

    def _count_from(
        self, restart: Restart, wanted: set[int], size: Size, deadline: float | None
    ) -> dict[int, np.ndarray]:
        """Frames by number, of those that a decoder returns from a restart on."""
        assert self._order is not None
        if restart.frame:
            self._container.seek(restart.tick, stream=self._stream, backward=True)
        else:
            self._reopen()
        context = self._stream.codec_context
        context.skip_frame = "DEFAULT"
        frames: dict[int, np.ndarray] = {}
        number, last = restart.frame, max(wanted)
        begun = False
        for packet in self._container.demux(self._stream):
            check_deadline(self.path, deadline)
            tick = packet.dts if packet.dts is not None else packet.pts
            begun = begun or tick == restart.tick
            if packet.size == 0 or not begun:
                if tick is None or (tick > restart.tick and not begun):
                    break
                continue
            for frame in packet.decode():
                if number in wanted and not frame.is_corrupt:
                    frames[number] = self._converter.convert(frame, size)
                number += 1
            if number > last:
                return frames
        for frame in context.decode(None) if begun else ():
            if number in wanted and not frame.is_corrupt:
                frames[number] = self._converter.convert(frame, size)
            number += 1
        return frames

"""Frames on disk: decoded once for all processes of a machine, under a cap in bytes.

Between the memory of a `FrameStore` and its decoder. An entry is one frame in a file of its own,
found by what was asked for: the file's identity (real path, bytes, modification time), the time,
the size, and the back end with its version. It holds plain bytes, never a pickle: a magic word, the
key's digest, height and width, the frame's true timestamp, a checksum, the pixels.

Any number of processes may read, write and evict at once, without a lock: an entry is written
under a name of its own and renamed, so that readers see all of it or nothing, and two writers of
one entry write the same. A truncated or altered entry is deleted, counted and decoded again.

Run its tests: `python -m pytest tests/video/test_video_disk.py`.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import struct
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np

from paravt_env.common.files import ABANDONED, cache_root, make_folder
from paravt_env.video.store.cache import Key, Shown

HEADER = struct.Struct("<8s32sIIdI")
"""Magic word, SHA-256 of the key, height, width, timestamp in seconds, CRC-32 of the pixels."""

MAGIC = b"PVTFRM01"
SUFFIX, PART = ".frame", ".part"

FREED = 0.9
"""Eviction stops at this share of the cap, so that it is not needed again at once."""

CHECKED = 0.05
"""The folder is measured again each time that this share of the cap has been written."""

log = logging.getLogger("paravt_env.video")


def default_folder() -> Path:
    """`frames` under `$PARAVT_CACHE`, or under `~/.cache/paravt`."""
    return cache_root() / "frames"


class DiskFrames:
    """A folder of frames, least recently used out first; safe from any thread and process.

    Args:
        max_bytes: the most that the folder may hold, for a moment exceeded by `CHECKED` of it for
            each process that writes.
        source: what decodes, with its version: another decoder's pixels are other entries.
        folder: default `default_folder()`; made if it is not there.

    Attributes:
        hits: frames read so far.
        rebuilt: damaged entries found, each deleted to be decoded again.
        failed_writes: entries that could not be written (disk full, no permission).

    Raises:
        ValueError: `max_bytes` is not positive.
        OSError: the folder cannot be made.
    """

    def __init__(self, max_bytes: int, source: str, folder: Path | None = None) -> None:
        if max_bytes < 1:
            raise ValueError(f"a frame folder needs a cap of at least one byte, not {max_bytes}")
        self.max_bytes, self.source = max_bytes, source
        self.folder = default_folder() if folder is None else folder
        make_folder(self.folder, 0o700)
        self.hits = self.rebuilt = self.failed_writes = 0
        self._lock = threading.Lock()
        self._names = itertools.count()
        self._unmeasured = max_bytes  # the first write measures what other processes left

    def load(self, key: Key) -> Shown | None:
        """The frame asked for by `key`, or None; a hit makes it the most recently used one."""
        digest = self._digest(key)
        path = self._path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        shown = _unpack(data, digest, key[1])
        if shown is None:
            log.warning("frame cache: %s is damaged and will be decoded again", path.name)
            path.unlink(missing_ok=True)
            with self._lock:
                self.rebuilt += 1
            return None
        with suppress(OSError):  # evicted meanwhile: the bytes were read all the same
            os.utime(path)
        with self._lock:
            self.hits += 1
        return shown

    def save(self, key: Key, shown: Shown) -> None:
        """Keep a frame; a full disk is logged once and leaves the frame to memory alone."""
        stamp, pixels, *_ = shown
        digest = self._digest(key)
        path = self._path(digest)
        raw = np.ascontiguousarray(pixels).tobytes()
        header = HEADER.pack(MAGIC, digest, *pixels.shape[:2], stamp, zlib.crc32(raw))
        size = len(header) + len(raw)
        if size > self.max_bytes * FREED:
            return
        part = path.with_name(f"{path.stem}.{os.getpid()}.{next(self._names)}{PART}")
        try:
            path.parent.mkdir(exist_ok=True, mode=0o700)
            with open(part, "xb") as out:
                out.write(header)
                out.write(raw)
            os.replace(part, path)
        except OSError as error:
            part.unlink(missing_ok=True)
            with self._lock:
                self.failed_writes += 1
                first = self.failed_writes == 1
            if first:
                log.warning("frame cache: %s cannot be written (%s)", self.folder, error.strerror)
            return
        with self._lock:
            self._unmeasured += size
            due = self._unmeasured >= self.max_bytes * CHECKED
            if due:
                self._unmeasured = 0
        if due:
            self.evict()

    def evict(self) -> int:
        """Delete the least recently used entries if the cap is exceeded; bytes that are left."""
        entries: list[tuple[int, int, str]] = []
        old = time.time() - ABANDONED
        for shelf in os.scandir(self.folder):
            if not shelf.is_dir(follow_symlinks=False):
                continue
            for entry in os.scandir(shelf.path):
                try:
                    stat = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # another process evicts too
                    continue
                if entry.name.endswith(SUFFIX):
                    entries.append((stat.st_mtime_ns, stat.st_size, entry.path))
                elif entry.name.endswith(PART) and stat.st_mtime < old:
                    Path(entry.path).unlink(missing_ok=True)
        total = sum(size for _, size, _ in entries)
        if total > self.max_bytes:
            for _, size, path in sorted(entries):
                if total <= self.max_bytes * FREED:
                    break
                Path(path).unlink(missing_ok=True)
                total -= size
        return total

    def _digest(self, key: Key) -> bytes:
        (real, size, modified), (height, width), seconds = key
        fields = (real, size, modified, height, width, seconds.hex(), self.source)
        text = "\0".join(map(str, fields))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()

    def _path(self, digest: bytes) -> Path:
        name = digest.hex()
        return self.folder / name[:2] / f"{name[2:]}{SUFFIX}"


def _unpack(data: bytes, digest: bytes, size: tuple[int, int]) -> Shown | None:
    """An entry's timestamp and pixels; None unless it is whole and the one asked for."""
    if len(data) < HEADER.size:
        return None
    magic, owner, height, width, stamp, checksum = HEADER.unpack_from(data)
    raw = memoryview(data)[HEADER.size :]
    whole = (magic, owner, (height, width)) == (MAGIC, digest, size)
    if not whole or len(raw) != 3 * height * width or zlib.crc32(raw) != checksum:
        return None
    return Shown(stamp, np.frombuffer(raw, np.uint8).reshape(height, width, 3))

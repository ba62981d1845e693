"""Files that are whole or absent, and the folder that is kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from paravt_env.common.files import (
    ABANDONED,
    atomic_path,
    cache_root,
    flush,
    make_folder,
    sweep,
    write_whole,
)


def test_without_a_home_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARAVT_CACHE", "~nobody-of-that-name/cache")
    with pytest.raises(OSError, match="no home folder: set PARAVT_CACHE"):
        cache_root()


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "a.mp4"
    with atomic_path(target) as first, atomic_path(target) as second:
        first.write_text("one")
        second.write_text("two")
        assert not target.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert target.read_text() == "one"  # whichever is finished last, whole


def test_cache_folder_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARAVT_CACHE", "/somewhere")
    assert cache_root() == Path("/somewhere")
    monkeypatch.delenv("PARAVT_CACHE")
    assert cache_root() == Path.home() / ".cache" / "paravt"


def test_what_was_there_before_stays_where_writing_fails(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    write_whole(target, "before")
    with pytest.raises(OSError, match=r"cannot write .*report.json: .*\(free some space\)"):  # noqa: SIM117
        with atomic_path(target, "free some space") as draft:
            draft.write_text("half")
            raise OSError(28, "No space left on device")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as draft:
        draft.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_text_is_utf_8_and_bytes_are_bytes(tmp_path: Path) -> None:
    write_whole(tmp_path / "text", "é\n")
    write_whole(tmp_path / "bytes", b"\xff\n")
    assert (tmp_path / "text").read_bytes() == b"\xc3\xa9\n"
    assert (tmp_path / "bytes").read_bytes() == b"\xff\n"


def test_only_old_drafts_are_swept(tmp_path: Path) -> None:
    old, new, kept = tmp_path / ".a.1.tmp", tmp_path / ".b.2.tmp", tmp_path / "c.tmp"
    for path in (old, new, kept):
        path.write_text("half")
    then = old.stat().st_mtime - ABANDONED - 1
    for path in (old, kept):
        os.utime(path, (then, then))
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name, kept.name]


def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot make the folder .*another place with PARAVT_CACHE"):
        make_folder(tmp_path / "file" / "inside")


def test_flush_reaches_every_file_and_folder(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "weights").write_text("w")
    flushed = []
    real = os.fsync

    def fsync(handle: int) -> None:
        flushed.append(os.fstat(handle).st_ino)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    flush(tmp_path)
    places = [tmp_path / "inner", tmp_path / "inner" / "weights", tmp_path]
    assert sorted(flushed) == sorted(place.stat().st_ino for place in places)


@pytest.mark.parametrize("content", ["two", b"two"])
def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | bytes
) -> None:
    target = tmp_path / "a.json"
    write_whole(target, "one")

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:1])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match=r"cannot write .*a\.json: No space left on device"):
            write_whole(target, content)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert target.read_text() == "one"
    write_whole(target, content)
    assert target.read_bytes() == b"two"


def test_half_a_surrogate_pair_does_not_lose_a_file(tmp_path):
    write_whole(tmp_path / "a.svg", "half \ud800, \N{SNOWMAN}")
    assert (tmp_path / "a.svg").read_text(encoding="utf-8") == "half ?, \N{SNOWMAN}"

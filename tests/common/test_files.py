"""Whole files, and the folder that is kept between runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from paravt_env.common.files import atomic_path, cache_root, write_whole


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

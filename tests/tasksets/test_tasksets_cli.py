"""`paravt data list`, `validate` and `materialize`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.kinds import write_rare_end
from support.published_rows import MMVU, PARAVT_RL, touch, write_rows
from support.videos import truncate, write_video

from paravt_env.video import Frames, FrameStore
from paravt_env.video.types import Size
from train import cli

ROW = {"id": "a", "video": "v.mp4", "question": "?", "kind": "open", "answer": "x"}


def data(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[str]]:
    """Exit status and the lines that were printed."""
    status = cli.main(["data", *map(str, words)])
    captured = capsys.readouterr()
    return status, (captured.out + captured.err).splitlines()


def test_validate_names_file_line_and_field_of_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path, "v.mp4")
    path = write_rows(
        tmp_path / "t.jsonl",
        ROW,
        {**ROW, "id": "b", "kind": "quiz", "evidence": [[2, 1]]},
        {**ROW, "id": "c", "video": "gone.mp4"},
        {**ROW, "id": "d", "video": "gone.mp4"},
    )
    status, lines = data(capsys, "validate", path)
    assert status == 1
    assert [line.split(": ")[:2] for line in lines[:3]] == [
        [f"{path}, line 2", "field 'kind'"],
        [f"{path}, line 2", "field 'evidence'"],
        [f"{path}, line 3", "field 'video'"],
    ]
    assert lines[2].endswith(f"no such file: {tmp_path / 'gone.mp4'} (2 tasks)")
    assert lines[3:] == [
        f"{path}: 3 tasks on 2 videos (open 3)",
        "  missing: 1 of 2 videos (2 tasks)",
        "  3 problems",
    ]


def test_validate_is_silent_about_a_good_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path, "v.mp4")
    path = write_rows(tmp_path / "t.jsonl", ROW)
    assert data(capsys, "validate", path) == (
        0, [f"{path}: 1 tasks on 1 videos (open 1)", "  0 problems"],
    )  # fmt: skip
    bad = write_rows(tmp_path / "bad.jsonl", {**ROW, "kind": "quiz"})
    assert data(capsys, "validate", path, bad)[0] == 1


def test_validate_opens_the_videos_when_asked(
    clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(clip, tmp_path / "v.mp4")
    touch(tmp_path, "broken.mp4")
    path = write_rows(
        tmp_path / "t.jsonl",
        {**ROW, "evidence": [[1, 30]]},
        {**ROW, "id": "b", "evidence": [[1, 31]]},
        {**ROW, "id": "c", "kind": "grounding", "answer": "5-40"},
        {**ROW, "id": "d", "video": "broken.mp4"},
        {**ROW, "id": "e", "video": "broken.mp4"},
    )
    assert data(capsys, "validate", path)[0] == 0
    status, lines = data(capsys, "validate", path, "--open")
    assert status == 1
    assert lines[:2] == [
        f"{path}, line 2: field 'evidence': ends at 31 s, the video at 30 s",
        f"{path}, line 3: field 'answer': ends at 40 s, the video at 30 s",
    ]
    assert lines[2].startswith(f"{path}, line 4: field 'video': {tmp_path / 'broken.mp4'}: ")
    assert lines[-1] == "  3 problems"


def test_validate_reads_what_a_run_would_read(
    clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_video(tmp_path / "whole.mp4", frames=720, options={"movflags": "faststart"})
    truncate(whole, tmp_path / "v.mp4", 0.8)
    path = write_rows(tmp_path / "t.jsonl", ROW)
    assert data(capsys, "validate", path)[0] == 0, "the file is there"
    status, lines = data(capsys, "validate", path, "--open")
    assert status == 1 and "field 'video'" in lines[0] and "no intact frame at 30.00 s" in lines[0]
    shutil.copy(clip, tmp_path / "v.mp4")
    asked: list[int] = []
    original = FrameStore.frames

    def spy(self: FrameStore, path: str, times: np.ndarray, size: Size, *rest: Any) -> Frames:
        asked.append(len(times))
        return original(self, path, times, size, *rest)

    monkeypatch.setattr(FrameStore, "frames", spy)
    assert data(capsys, "validate", path, "--open")[0] == 0
    assert asked == [2, 8, 16]
    asked.clear()
    assert data(capsys, "validate", path, "--thorough")[0] == 0
    assert asked == [2, 8, 16, 64, *[16] * 21]


def test_validate_counts_the_cues_that_are_left_out(
    clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(clip, tmp_path / "v.mp4")
    (tmp_path / "a.srt").write_text("1\n0:05 --> 0:02\nx\n\n2\n0:06 --> 0:07\ny\n")
    (tmp_path / "b.srt").write_text("no times")
    path = write_rows(
        tmp_path / "t.jsonl",
        {**ROW, "subtitles": "a.srt"},
        {**ROW, "id": "b", "subtitles": "b.srt"},
        {**ROW, "id": "c", "subtitles": "b.srt"},
    )
    assert data(capsys, "validate", path)[0] == 0
    status, lines = data(capsys, "validate", path, "--open")
    assert status == 1 and lines[-1] == "  2 problems"
    assert "line 1: field 'subtitles'" in lines[0] and "1 cues left out, 1 read" in lines[0]
    assert "line 2: field 'subtitles'" in lines[1] and "not SubRip" in lines[1]


def test_validate_says_what_a_file_lacks_and_not_that_it_is_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = write_video(tmp_path / "half.ts", frames=48).read_bytes()
    (tmp_path / "v.mp4").write_bytes(half + half)
    write_rare_end(tmp_path / "rare.mp4")
    path = write_rows(
        tmp_path / "t.jsonl",
        ROW,
        {**ROW, "id": "b", "video": "rare.mp4", "evidence": [[25, 29.9]]},
    )
    status, lines = data(capsys, "validate", path, "--thorough")
    assert status == 1 and lines[-1] == "  1 problems"
    assert "joined at 2.00 s" in lines[0] and "ffmpeg" in lines[0] and "damaged" not in lines[0]


def test_published_sets_are_listed_and_validated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {**MMVU, "id": "b", "answer": "Z"}
    path = write_rows(tmp_path / "validation.json", MMVU, bad)
    touch(tmp_path, "videos/Art/0.mp4")
    status, lines = data(capsys, "validate", "mmvu", "--root", tmp_path)
    assert (status, lines[0]) == (1, f"{path}, row 2: field 'answer': 'Z' is not a letter of ABCDE")
    status, lines = data(capsys, "list", "mmvu", "--root", tmp_path)
    assert (status, len(lines)) == (2, 1) and "row 2: field 'answer'" in lines[0]
    status, lines = data(capsys, "list", "mmvu", "--root", tmp_path, "--option", "strict=false")
    assert (status, lines[0]) == (0, "all: 1 tasks on 1 videos (multiple-choice 1)")
    assert lines[1].startswith("validation_0  mcq  Art  ")
    (tmp_path / "videos" / "Art" / "0.mp4").unlink()
    _, lines = data(capsys, "list", "mmvu", "--root", tmp_path, "--option", "strict=false")
    assert lines[1] == "  missing: 1 of 1 videos (1 tasks)"
    assert lines[-1] == f"missing: {tmp_path / 'videos' / 'Art' / '0.mp4'}"


def test_what_a_manifest_says_does_not_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path, "v.mp4")
    row = {**ROW, "id": "x\x1b[31m", "question": "one\nline \ud800 \x1b[2J", "family": "\x1b]0;f"}
    path = write_rows(tmp_path / "t.jsonl", row, {**row, "video": "gone\x1b[1m.mp4"})
    for action in ("list", "validate"):
        _, lines = data(capsys, action, path, *(["--option", "strict=false"] * (action == "list")))
        assert not [line for line in lines if "\x1b" in line or "\ud800" in line]
    _, lines = data(capsys, "list", path, "--option", "strict=false")
    assert lines[1].endswith("one line \ufffd \ufffd[2J")
    assert cli.main(["play", "--tasks", str(path.with_name("t.jsonl"))]) == 2
    good = write_rows(tmp_path / "good.jsonl", row)
    assert cli.main(["play", "--tasks", str(good)]) == 0  # the video is none: said, not raised
    assert "\x1b" not in capsys.readouterr().out


def test_make_takes_made_sets_alone_and_every_one_that_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dials = ["minutes=[4,4]", "scenes=6", "event_seconds=8", "event_jitter=2", "questions=8"]
    words = ["--split", "val", "--videos", "1", "--root", tmp_path]
    options = [word for dial in dials for word in ("--option", dial)]
    status, lines = data(capsys, "make", "synthetic", "synthetic", *words, *options)
    assert status == 0 and sum(line.startswith("val: 8 tasks on 1") for line in lines) == 2
    status, lines = data(capsys, "make", "synthetic", "mmvu", *words)
    assert (status, len(lines)) == (
        2,
        1,
    ) and "make knows synthetic, synthetic_brief, atari, zoom only" in lines[0]


def test_stats_measures_the_world_of_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["stats", "--videos", "1", "--split", "val", "--frame-budgets", "16"]
    _, usual = data(capsys, *words)
    _, fewer = data(capsys, *words, "--option", "questions=8")
    assert usual[0].startswith("12 questions, 1 videos")
    assert fewer[0].startswith("8 questions, 1 videos")


def test_materialize_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_rows(tmp_path / "paravt_rl_x.parquet", PARAVT_RL)
    words = ("materialize", source, "--root", tmp_path, "--output", tmp_path / "out")
    assert data(capsys, *words) == (
        1,
        [
            "missing: longvt_source/videor1_1/a.mp4",
            f"1 files, 1 rows written to {tmp_path / 'out'}; 1 files missing (longvt_source 1), "
            "0 paths refused",
        ],
    )
    touch(tmp_path, "longvt_source/videor1_1/a.mp4")
    assert data(capsys, *words)[0] == 0
    assert (tmp_path / "out" / "paravt_rl_x.parquet").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["validate", "absent.jsonl"], "cannot read the manifest"),
        (["validate", "synthetic"], "nothing to validate"),
        (["validate", "video_mm"], "did you mean 'video_mme'"),
        (["validate", "video_mme"], "give root="),
        (["list", "video_mme", "--option", "root"], "KEY=VALUE expected"),
        (["make", "--option", "split=val"], "--option 'split=val': say --split val"),
        (["stats", "--option", "videos=0"], "--option 'videos=0': say --videos 0"),
        (["list", "mmvu", "--option", "videos=x"], "mmvu: give root="),  # there it is a folder
        (["list", "mmvu", "--option", "frames=3"], "its arguments are root, split"),
        (["stats", "--option", "minute=5"], "did you mean 'minutes'"),
        (["materialize"], "materialize needs FILES"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, lines = data(capsys, *words)
    assert (status, len(lines)) == (2, 1) and message in lines[0]

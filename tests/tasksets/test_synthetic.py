"""The synthetic world: its plan, its pixels, its questions and its files."""

from __future__ import annotations

import errno
import os
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from paravt_env.common.files import ABANDONED
from paravt_env.task import Task, TaskError
from paravt_env.tasksets import load_tasks
from paravt_env.tasksets.made.base import SPLITS
from paravt_env.tasksets.made.synthetic import SyntheticTasks, generate, oracle
from paravt_env.tasksets.made.synthetic.generate import plan_tasks
from paravt_env.tasksets.made.synthetic.render import RGB, Painter, symbol_mask
from paravt_env.tasksets.made.synthetic.world import (
    COLOURS,
    CORNERS,
    FAMILIES,
    SYMBOLS,
    Event,
    Scene,
    WorldSettings,
    plan_video,
)

TINY: dict[str, Any] = {
    "minutes": (5, 5),
    "scenes": 6,
    "width": 64,
    "height": 64,
    "fps": 4,
    "questions": 8,
}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> SyntheticTasks:
    """Two 5-minute videos of 64 x 64 pixels, 16 tasks."""
    root = tmp_path_factory.mktemp("world")
    return SyntheticTasks("train", root=root, videos=2, progress=False, **TINY)


# ---- the plan


@pytest.mark.parametrize("split", SPLITS)
def test_plan_has_a_full_palette_and_events_near_noon(split: str) -> None:
    settings = WorldSettings()
    plan = plan_video(settings, split, 3)
    assert 13 * 60 <= plan.duration <= 20 * 60
    assert (plan.scenes[0].start, plan.scenes[-1].end) == (0, plan.duration)
    assert sorted(s.colour for s in plan.scenes if s.coloured) == sorted(COLOURS)
    assert Counter(s.coloured for s in plan.scenes) == {True: 8, False: 6}
    for scene, following in pairwise(plan.scenes):
        assert scene.end == following.start and scene.colour != following.colour
    for scene in plan.scenes:
        assert 0.85 < (scene.end - scene.start) / (plan.duration / 14) < 1.15
        assert len({e.symbol for e in scene.events}) == 1
        assert len({e.corner for e in scene.events}) == len(scene.events)
        for event in scene.events:
            assert event.end - event.start == 12
            assert event.start * 8 == int(event.start * 8)
            # jitter 5 s, stagger 0.5 s, rounding to frames
            assert abs((event.start + event.end) / 2 - scene.noon) <= 5.7
    coloured = [s for s in plan.scenes if s.coloured]
    assert sorted(len(s.events) for s in coloured) == [1, 1, 1, 1, 2, 2, 3, 4]
    assert sorted(Counter(s.events[0].symbol for s in coloured).values()) == [1, 2, 2, 3]


def test_plan_is_a_function_of_settings_split_and_index() -> None:
    settings = WorldSettings()
    plans = [plan_video(settings, split, index) for split in SPLITS for index in range(6)]
    assert len({plan.seed for plan in plans}) == len({plan.scenes for plan in plans}) == 18
    assert plans[0] == plan_video(settings, "train", 0)
    assert plans[0].scenes != plan_video(WorldSettings(seed=1), "train", 0).scenes


def test_phase_runs_from_left_to_right() -> None:
    scene = Scene(100.0, 180.0, "red", ())
    assert (scene.phase(100), scene.phase(120), scene.noon, scene.phase(180)) == (0, 0.25, 140, 1)


@pytest.mark.parametrize("scenes", [6, 9, 14, 40])
def test_number_of_scenes_is_a_dial(scenes: int) -> None:
    plan = plan_video(WorldSettings(minutes=(60, 60), scenes=scenes), "train", 0)
    colours = [s.colour for s in plan.scenes]
    assert len(colours) == scenes
    assert all(a != b for a, b in pairwise(colours))


@pytest.mark.parametrize(
    ("dials", "message"),
    [
        ({"event_second": 6}, "did you mean 'event_seconds'"),
        ({"event_seconds": "6"}, "event_seconds must be a number, not '6'"),
        ({"scenes": 14.0}, "scenes must be a whole number"),
        ({"scenes": 5}, "scenes must be at least 6"),
        ({"minutes": 5}, "minutes must be two numbers"),
        ({"minutes": (5, 4)}, "minutes must be shortest and longest"),
        ({"event_jitter": 7}, "half of event_seconds"),
        ({"noise": 99}, "noise must be within 0 and 12"),
        ({"width": 127}, "width and height must be even"),
        ({"families": ["flash", "flip"]}, "families must be some of"),
        ({"scenes": 60}, "take fewer scenes"),
        ({"minutes": (5, 5), "scenes": 6, "questions": 100}, "different questions; ask fewer"),
        ({"videos": 0}, "videos must be at least 1"),
        ({"videos": True}, "a whole number, not True"),
        ({"videos": "2"}, "a whole number, not '2'"),
        ({"minutes": ["a", "b"]}, "synthetic: could not convert string to float"),
        ({"families": 3}, "synthetic: 'int' object is not iterable; the settings are"),
        ({"split": "dev"}, "unknown split 'dev'"),
    ],
)
def test_a_wrong_dial_fails_before_anything_is_written(
    tmp_path: Path, dials: dict[str, Any], message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        load_tasks("synthetic", root=tmp_path / "cache", **{"videos": 1, **dials})
    assert not list(tmp_path.rglob("*.mp4"))


# ---- the pixels


def test_symbols_stay_distinct_at_22_pixels() -> None:
    masks = {name: symbol_mask(name, 22) > 0.5 for name in SYMBOLS}
    assert all(mask.sum() > 80 for mask in masks.values())
    for one, two in combinations(SYMBOLS, 2):
        union = (masks[one] | masks[two]).sum()
        assert (masks[one] & masks[two]).sum() / union < 0.85, (one, two)


def test_frames_show_the_plan(world: SyntheticTasks) -> None:
    scenes = oracle.scenes_of(world[0])
    wanted: list[tuple[float, Scene, Event | None]] = []
    for scene in scenes:
        event = scene.events[0]
        before = event.start - 0.25 if len(scene.events) == 1 else scene.start + 1
        wanted += [(before, scene, None), (event.start, scene, event), (event.end, scene, None)]
        wanted += [(event.end - 0.25, scene, event), (scene.end - 0.25, scene, None)]
    frames = {}
    with av.open(world[0].video) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 4
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 64, 64)
        for frame in container.decode(stream):
            frames[round(frame.time * 4)] = frame.to_ndarray(format="rgb24")
    assert len(frames) == round(world[0].metadata["duration"] * 4)
    for time, scene, shown in wanted:
        picture = frames[round(time * 4)].astype(int)
        assert np.abs(np.median(picture, axis=(0, 1)) - RGB[scene.colour]).max() < 30, scene.colour
        bright = np.flatnonzero(picture[1:6].min(axis=2).max(axis=0) > 200)  # trail and sun
        assert abs((bright.max() - 4) / 64 - scene.phase(time)) < 0.12
        if len(scene.events) == 1:
            row, column = divmod(CORNERS.index(scene.events[0].corner), 2)
            corner = picture[8 + row * 24 : 32 + row * 32, column * 32 : 32 + column * 32]
            white = (corner.min(axis=2) > 215).sum()
            assert (white > 50) == (shown is not None), (time, scene)


def test_many_distractors_darken_and_never_wrap_around() -> None:
    settings = WorldSettings(distractors=20, noise=12)
    plan = plan_video(settings, "train", 0)
    first = plan.scenes[0]
    frame = next(Painter(plan, settings).frames())
    assert frame.shape == (192, 128) and first.events[0].start > 0
    assert (frame[:128] > 200).mean() < 0.02, "only the sun is bright"
    plain = next(Painter(plan, WorldSettings(distractors=0, noise=12)).frames())
    assert frame[:128].mean() < plain[:128].mean() - 5


def test_drawn_symbol_is_the_named_one(world: SyntheticTasks) -> None:
    scene = next(s for s in oracle.scenes_of(world[0]) if len(s.events) == 4)
    with av.open(world[0].video) as container:
        frame = next(f for f in container.decode(video=0) if f.time >= scene.events[0].start + 2)
        grey = frame.to_ndarray(format="gray")[32:, :32]
    ys, xs = np.nonzero(grey > 190)
    size = 22
    best, score = "", 0.0
    for name in SYMBOLS:
        mask = symbol_mask(name, size) > 0.5
        my, mx = np.nonzero(mask)
        dy, dx = round(ys.mean() - my.mean()), round(xs.mean() - mx.mean())
        placed = np.zeros((64, 64), bool)
        placed[my + dy + 16, mx + dx + 16] = True
        seen = np.zeros((64, 64), bool)
        seen[ys + 16, xs + 16] = True
        iou = (placed & seen).sum() / (placed | seen).sum()
        best, score = max((best, score), (name, iou), key=lambda pair: pair[1])
    assert best == scene.events[0].symbol


# ---- the questions


def _expected(task: Task) -> str:
    """The right answer, worked out from the scenes by colour."""
    scenes = task.metadata["scenes"]
    by_colour = {s["colour"]: i for i, s in enumerate(scenes)}
    places = [by_colour[colour] for colour in task.metadata["colours"]]
    if task.family == "after":
        places = [places[0] + 1]
    events = [scenes[i]["events"] for i in places]
    symbols = [found[0]["symbol"] for found in events]
    spans = [(min(e["start"] for e in f), max(e["end"] for e in f)) for f in events]
    assert task.evidence == tuple(spans)
    if task.family == "where":
        assert len(events[0]) == 1
    if task.family == "goal":
        pairs = list(zip(task.metadata["colours"], symbols, strict=True))
        reached = [colour for colour, symbol in pairs[1:] if symbol == symbols[0]]
        return {0: "neither", 1: reached[0] if reached else "", 2: "both"}[len(reached)]
    return {
        "where": events[0][0]["corner"],
        "count": str(len(events[0])),
        "when": f"{spans[0][0]:.1f}-{spans[0][1]:.1f}",
        "order": ", ".join(symbols),
    }.get(task.family, symbols[0])


def test_gold_answers_and_evidence_follow_from_the_scenes() -> None:
    for task in plan_tasks(WorldSettings(), "val", 4):
        gold = task.options["ABCD".index(task.answer)] if task.options else task.answer
        assert gold == _expected(task), task
        assert all(colour in task.question for colour in task.metadata["colours"])
        assert len(set(task.options)) == len(task.options) == (4 if task.kind == "mcq" else 0)


def test_families_cover_four_categories_and_three_kinds_evenly() -> None:
    tasks = plan_tasks(WorldSettings(), "train", 8)
    assert Counter(task.family for task in tasks) == dict.fromkeys(FAMILIES, 12)
    assert {task.category for task in tasks} == {"temporal", "goal", "spatial", "plot"}
    assert Counter(task.kind for task in tasks) == {"mcq": 72, "open": 12, "grounding": 12}
    assert Counter(len(task.evidence) for task in tasks) == {1: 72, 2: 12, 3: 12}
    assert len({(t.metadata["video"], t.family, tuple(t.metadata["asked"])) for t in tasks}) == 96


def test_neither_a_letter_nor_a_word_is_worth_guessing() -> None:
    tasks = plan_tasks(WorldSettings(), "train", 96)
    letters = Counter(task.answer for task in tasks if task.kind == "mcq")
    assert max(letters.values()) / letters.total() < 0.28
    for family, limit in {"flash": 0.28, "open": 0.28, "where": 0.34, "count": 0.34}.items():
        chosen = [task for task in tasks if task.family == family]
        words = Counter(
            t.options["ABCD".index(t.answer)] if t.options else t.answer for t in chosen
        )
        assert max(words.values()) / len(chosen) < limit, words
    goals = [t for t in tasks if t.family == "goal"]
    words = Counter(t.options["ABCD".index(t.answer)] for t in goals)
    assert max(words["both"], words["neither"]) / len(goals) < 0.34


def test_order_options_leave_a_coin_to_toss_without_either_scene() -> None:
    tasks = [t for t in plan_tasks(WorldSettings(), "train", 8) if t.family == "order"]
    for task in tasks:
        pairs = [option.split(", ") for option in task.options]
        assert sorted(Counter(a for a, _ in pairs).values()) == [2, 2]
        assert sorted(Counter(b for _, b in pairs).values()) == [2, 2]


# ---- the files


def test_manifest_holds_readable_tasks(world: SyntheticTasks) -> None:
    assert (world.name, len(world), world.ids[0]) == ("synthetic", 16, "train-00000-00")
    task = world.by_id("train-00001-07")
    assert Path(task.video).is_file() and Path(task.video).is_absolute()
    assert {t.family for t in (world[i] for i in range(16))} == set(FAMILIES)
    with pytest.raises(TaskError, match="did you mean 'train-00001-07'"):
        world.by_id("train-00001-7")


def test_same_seed_same_bytes_and_finished_videos_are_kept(
    tmp_path: Path, world: SyntheticTasks
) -> None:
    one = SyntheticTasks("train", root=tmp_path, videos=1, progress=False, **TINY)
    assert Path(one[0].video).read_bytes() == Path(world[0].video).read_bytes()
    before = os.stat(one[0].video).st_mtime_ns
    again = SyntheticTasks("train", root=tmp_path, videos=1, progress=False, **TINY)
    assert os.stat(again[0].video).st_mtime_ns == before
    other = SyntheticTasks("val", root=tmp_path, videos=1, progress=False, **TINY)
    assert Path(other[0].video).read_bytes() != Path(one[0].video).read_bytes()
    assert Path(other[0].video).parent == Path(one[0].video).parent
    longer = {**TINY, "event_seconds": 10.0}
    changed = SyntheticTasks("train", root=tmp_path, videos=1, progress=False, **longer)
    assert Path(changed[0].video).parent != Path(one[0].video).parent


@pytest.mark.parametrize("failure", ["interrupted", "disk full"])
def test_failed_generation_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    encode = generate.encode

    def breaks(plan: Any, settings: WorldSettings, path: Path) -> None:
        if plan.name.endswith("00001"):
            path.write_bytes(b"half a video")
            if failure == "interrupted":
                raise KeyboardInterrupt
            raise OSError(errno.ENOSPC, "No space left on device")
        encode(plan, settings, path)

    monkeypatch.setattr(generate, "encode", breaks)
    expected = KeyboardInterrupt if failure == "interrupted" else OSError
    message = None if failure == "interrupted" else "No space left.*PARAVT_CACHE.*finished videos"
    with pytest.raises(expected, match=message):
        SyntheticTasks("train", root=tmp_path, videos=2, progress=False, **TINY)
    assert [p.name for p in tmp_path.rglob("*.mp4*")] == ["train-00000.mp4"]
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob("*.jsonl"))
    made = next(tmp_path.rglob("*.mp4")).stat().st_mtime_ns
    monkeypatch.setattr(generate, "encode", encode)
    tasks = SyntheticTasks("train", root=tmp_path, videos=2, progress=False, **TINY)
    assert Path(tasks[0].video).stat().st_mtime_ns == made and len(tasks) == 16


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot make the folder .*choose another .* PARAVT_CACHE"):
        SyntheticTasks("train", root=tmp_path / "file", videos=1, progress=False, **TINY)


def test_what_a_killed_process_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    SyntheticTasks("train", root=tmp_path, videos=1, progress=False, **TINY)
    videos = next(tmp_path.rglob("videos"))
    old, new = videos / ".train-00007.mp4.1.tmp", videos / ".train-00008.mp4.2.tmp"
    for path in (old, new):
        path.write_bytes(b"half a video")
    then = old.stat().st_mtime - ABANDONED - 1
    os.utime(old, (then, then))
    SyntheticTasks("train", root=tmp_path, videos=1, progress=False, **TINY)
    assert sorted(path.name for path in videos.iterdir()) == [new.name, "train-00000.mp4"]


def test_progress_is_shown_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {**TINY, "minutes": (4, 4)}
    SyntheticTasks("val", root=tmp_path, videos=1, **settings)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.endswith(f"[{'#' * 24}] 1/1\n")
    SyntheticTasks("val", root=tmp_path, videos=1, **settings)
    assert capsys.readouterr().err == ""

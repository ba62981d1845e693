"""Recorded games: their plan, their players, what the emulator says, the questions, the files."""

from __future__ import annotations

import errno
import json
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from paravt_env.span import parse_span
from paravt_env.task import Task, TaskError
from paravt_env.tasksets import load_tasks
from paravt_env.tasksets.made.atari import AtariTasks, generate, happenings, interruptions
from paravt_env.tasksets.made.atari.games import GAMES
from paravt_env.tasksets.made.atari.moments import (
    Aired,
    aired,
    clear_count,
    lives_lost,
    steady,
    value_at,
)
from paravt_env.tasksets.made.atari.plan import (
    FAMILIES,
    SPLITS,
    AtariSettings,
    Programme,
    Shot,
    VideoPlan,
    plan_video,
)
from paravt_env.tasksets.made.atari.players import REFLEXES, Player
from paravt_env.tasksets.made.atari.questions import make_tasks
from paravt_env.tasksets.made.atari.record import Console, Log, Recording
from paravt_env.tasksets.made.atari.stats import blind_guesses, evidence_shown, format_stats
from train.cli import main

SHORT: dict[str, Any] = {
    "minutes": (2, 2),
    "programmes": 3,
    "cut_seconds": (3, 4),
    "fps": 6,
    "long_every": 2,
}


PLAN = VideoPlan("train-00000", (0, 0, 0), 90.0, ())


@pytest.fixture(scope="session")
def short(tmp_path_factory: pytest.TempPathFactory) -> AtariTasks:
    """A video of channels and one long game, two minutes each, 24 tasks."""
    pytest.importorskip("ale_py")
    root = tmp_path_factory.mktemp("atari")
    return AtariTasks("train", root=root, videos=2, progress=False, **SHORT)


# ---- the plan


@pytest.mark.parametrize("split", SPLITS)
def test_every_programme_is_another_game_and_has_one_interruption(split: str) -> None:
    plan = plan_video(AtariSettings(), split, 0)
    assert 600 <= plan.duration <= 3600
    shots = [programme.shot for programme in plan.programmes]
    assert (shots[0].start, shots[-1].end) == (0, plan.duration)
    assert all(one.end == other.start for one, other in pairwise(shots))
    on = {shot.game for shot in shots}
    assert len(on) == len(shots) == 10
    assert any(GAMES[game].rooms is not None for game in on)
    for programme in plan.programmes:
        shot, cut = programme.shot, programme.cut
        assert cut is not None and cut.game not in on
        assert 8 <= cut.end - cut.start <= 16.1
        calm = 0.19 * (shot.end - shot.start)
        assert shot.start + calm < cut.start and cut.end < shot.end - calm


def test_every_fourth_video_is_one_long_game() -> None:
    plans = [plan_video(AtariSettings(), "train", index) for index in range(8)]
    assert [len(plan.programmes) for plan in plans] == [10, 10, 10, 1] * 2
    for plan in (plans[3], plans[7]):
        (programme,) = plan.programmes
        assert programme.cut is None
        assert (programme.shot.start, programme.shot.end) == (0, plan.duration)
        assert GAMES[programme.shot.game].lives and GAMES[programme.shot.game].scored
    none = AtariSettings(long_every=0)
    assert all(len(plan_video(none, "val", i).programmes) == 10 for i in range(5))


@pytest.mark.parametrize("index", [0, 3])
def test_an_hour_is_a_dial_for_channels_and_for_one_long_game(index: int) -> None:
    plan = plan_video(AtariSettings.from_dials({"minutes": [60, 60]}), "test", index)
    assert plan.duration == plan.programmes[-1].shot.end == 3600
    assert len(plan.programmes) == (1 if index == 3 else 10)


def test_splits_share_no_seed() -> None:
    plans = [plan_video(AtariSettings(), split, i) for split in SPLITS for i in range(5)]
    shots = [shot for plan in plans for p in plan.programmes for shot in (p.shot, p.cut) if shot]
    assert len({plan.seed for plan in plans}) == 15
    assert len({shot.seed for shot in shots}) == len(shots)
    assert plans[0] == plan_video(AtariSettings(), "train", 0)
    assert plans[0].programmes != plan_video(AtariSettings(seed=1), "train", 0).programmes


@pytest.mark.parametrize(
    ("dials", "message"),
    [
        ({"minute": 6}, "did you mean 'minutes'"),
        ({"minutes": 5}, "minutes must be two numbers"),
        ({"minutes": (5, True)}, "minutes must be two numbers"),
        ({"minutes": (5, 4)}, "minutes must be shortest and longest"),
        ({"cut_seconds": (0, 4)}, "cut_seconds must be shortest and longest"),
        ({"programmes": 2}, "programmes must be within 3 and 16"),
        ({"programmes": 10.0}, "programmes must be a whole number"),
        ({"fps": 7}, "fps must be a divisor of 60"),
        ({"questions": 0}, "questions must be within 1 and 100"),
        ({"families": ["cut", "cot"]}, "families must be some of"),
        ({"minutes": (1, 1)}, "take fewer programmes, a longer video or shorter cuts"),
        ({"seed": -1}, "seed must not be negative"),
        ({"long_every": -1}, "long_every must not be negative"),
        ({"videos": 0}, "videos must be at least 1"),
        ({"split": "dev"}, "unknown split 'dev'"),
    ],
)
def test_a_wrong_dial_fails_before_anything_is_written(
    tmp_path: Path, dials: dict[str, Any], message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        load_tasks("atari", root=tmp_path / "cache", **{"videos": 1, **dials})
    assert not list(tmp_path.iterdir())


def test_without_the_emulator_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(TaskError, match=r"pip install 'paravt\[atari\]'"):
        load_tasks("atari", root=tmp_path / "cache", videos=1)
    assert not list(tmp_path.iterdir())


# ---- the players


def test_habits_name_actions_of_the_joystick_and_reflexes_have_a_game() -> None:
    sides, ups = ("", "LEFT", "RIGHT"), ("", "UP", "DOWN")
    known = {up + side + fire for up in ups for side in sides for fire in ("", "FIRE")} | {"NOOP"}
    assert set(REFLEXES) <= set(GAMES)
    for key, game in GAMES.items():
        assert set(game.habits) <= known
        assert bool(game.habits) != (key in REFLEXES)


def test_a_player_is_a_function_of_its_seed_and_holds_actions() -> None:
    memory = np.zeros(128, np.uint8)

    def drawn(seed: int, style: str) -> list[str]:
        player = Player("seaquest", style, ["NOOP", "FIRE", "UP"], np.random.default_rng(seed))
        return [player.act(memory) for _ in range(400)]

    assert drawn(1, "random") == drawn(1, "random") != drawn(2, "random")
    assert set(drawn(1, "random")) == {"NOOP", "FIRE", "UP"}
    assert set(drawn(1, "scripted")) == set(GAMES["seaquest"].habits)
    changes = sum(one != other for one, other in pairwise(drawn(1, "scripted")))
    assert changes < 200 - 40  # held for two to eight decisions


def test_reflexes_follow_the_ball() -> None:
    memory = np.zeros(128, np.uint8)
    memory[[54, 51]] = 150, 100
    player = Player("pong", "scripted", [], np.random.default_rng(0))
    assert Counter(player.act(memory) for _ in range(200)).most_common(1)[0][0] == "LEFT"
    memory[[101, 99, 72]] = 90, 100, 150
    player = Player("breakout", "scripted", [], np.random.default_rng(0))
    assert Counter(player.act(memory) for _ in range(200)).most_common(1)[0][0] == "LEFT"
    memory[101] = 0
    assert {player.act(memory) for _ in range(20)} == {"FIRE"}


# ---- what can be asked


def log_of_two_games() -> Log:
    return Log(
        score=[(0.0, 0), (10.0, 20), (30.0, 50), (60.0, 0), (80.0, 40)],
        lives=[(0.0, 3), (20.0, 2), (25.0, 1), (40.0, 2), (59.9, 0), (60.0, 3), (90.0, 2)],
        rooms=[(0.0, 7), (15.0, 8), (15.5, 9), (70.0, 7)],
        ends=[59.9],
    )


def test_a_life_is_lost_when_the_number_falls_and_not_when_a_new_game_begins() -> None:
    assert lives_lost(log_of_two_games()) == [20.0, 25.0, 59.9, 90.0]


def test_counts_are_refused_where_a_viewer_could_disagree() -> None:
    times = [20.0, 25.0, 60.0]
    assert clear_count(times, (10.0, 40.0)) == 2
    assert clear_count(times, (30.0, 50.0)) == 0
    for window in ((19.0, 40.0), (21.0, 40.0), (10.0, 59.0), (10.0, 61.0)):
        assert clear_count(times, window) is None, window
    assert clear_count([20.0, 20.5], (10.0, 40.0), apart=1.0) is None
    assert clear_count([20.0, 21.5], (10.0, 40.0), apart=1.0) == 2


def test_a_value_is_steady_if_it_does_not_change_meanwhile() -> None:
    score = log_of_two_games().score
    assert [value_at(score, t) for t in (0, 9.9, 10, 59.9, 60)] == [0, 0, 20, 50, 0]
    assert steady(score, 10.0, 29.9) == 20
    assert steady(score, 9.9, 12.0) is None and steady(score, 12.0, 30.0) is None
    assert steady([(0.0, 5), (2.0, 6), (3.0, 5)], 1.0, 4.0) is None


def shows_of(log: Log, game: str = "seaquest", cut: bool = True) -> list[Aired]:
    inside = Shot("pong", "random", 1, 44.0, 54.0) if cut else None
    return [Aired(Programme(Shot(game, "random", 0, 0.0, 100.0), inside), log)]


def drafts(family: Any, shows: list[Aired], count: int = 300) -> list[Any]:
    rng = np.random.default_rng(0)
    found = [family(shows, rng) for _ in range(count)]
    return [draft for draft in found if draft is not None]


def test_lives_are_counted_in_windows_that_touch_no_interruption() -> None:
    found = drafts(happenings.lives, shows_of(log_of_two_games()))
    assert len(found) > 30
    lost = [20.0, 25.0, 59.9, 90.0]
    for draft in found:
        ((start, end),) = draft.evidence
        assert (end <= 44 or start >= 54) and 20 <= end - start <= 40
        assert int(draft.answer) == sum(start <= t < end for t in lost)
        assert not any(abs(t - edge) < 2 for t in lost for edge in (start, end))
        assert {draft.answer, *draft.wrong} == {"0", "1", "2", "3"}
    assert len({draft.answer for draft in found}) >= 3
    assert any("after its interruption" in draft.question for draft in found)


def test_rooms_are_asked_of_games_that_have_them() -> None:
    log = log_of_two_games()
    assert not drafts(happenings.rooms, shows_of(log))
    found = drafts(happenings.rooms, shows_of(log, "pitfall", cut=False))
    for draft in found:
        ((start, end),) = draft.evidence
        assert not start - 2 < 15.5 < end + 2  # two rooms within a second: nobody could count them
        assert not start - 2 < 59.9 < end + 2
        assert int(draft.answer) == (start <= 70.0 < end)
    assert {draft.answer for draft in found} == {"0", "1"}


def test_a_score_is_asked_for_while_it_stands_still() -> None:
    log = log_of_two_games()
    for family in (happenings.score, happenings.number):
        found = drafts(family, shows_of(log))
        assert {draft.answer for draft in found} == {"20", "40", "50"}
        for draft in found:
            second = int(draft.question.split(" at ")[1].split()[0])
            assert str(steady(log.score, second - 3, second + 3)) == draft.answer
            assert draft.evidence == ((second - 3, second + 3),)
            assert draft.answer not in draft.wrong
            assert len(set(draft.wrong)) == (3 if draft.kind == "mcq" else 0)
    assert not drafts(happenings.score, shows_of(log, "pong"))


def test_the_final_score_is_that_of_the_game_at_the_moment() -> None:
    found = drafts(happenings.final, shows_of(log_of_two_games()))
    assert {draft.answer for draft in found} == {"50"}
    for draft in found:
        assert 2 <= int(draft.question.split(" at ")[1].split()[0]) < 50
        ((start, end),) = draft.evidence
        assert (start, end) == (55.9, 59.9)


def test_goals_are_reached_by_one_both_or_neither_alike() -> None:
    one = shows_of(Log(score=[(0.0, 0), (10.0, 120)]))
    other = shows_of(Log(score=[(0.0, 0), (70.0, 80)]), "riverraid")
    found = drafts(happenings.goal, one + other, 800)
    names = [GAMES[key].name for key in ("seaquest", "riverraid")]
    best = {names[0]: 120, names[1]: 80}
    for draft in found:
        wanted = int(draft.question.split()[3])
        reached = [name for name in names if best[name] >= wanted]
        expected = {0: "neither", 2: "both"}.get(len(reached)) or reached[0]
        assert draft.answer == expected
        assert sorted(draft.evidence) == [(9.0, 14.0), (69.0, 74.0)]
    shares = Counter(draft.answer for draft in found)
    assert set(shares) == {names[0], "both", "neither"}
    assert max(shares.values()) < 1.5 * min(shares.values())


def test_which_game_is_on_is_as_often_the_interruption_as_the_programme() -> None:
    found = drafts(interruptions.which, shows_of(Log()))
    for draft in found:
        second = int(draft.question.split(" at ")[1].split()[0])
        inside = 44 <= second < 54
        assert draft.answer == GAMES["pong" if inside else "seaquest"].name
        assert min(abs(second - 44), abs(second - 54)) >= 2
        assert 22 <= second <= 76
    share = np.mean([draft.answer == GAMES["pong"].name for draft in found])
    assert 0.4 < share < 0.6


def test_wrong_games_never_include_one_that_is_right_or_is_the_programme() -> None:
    plan = plan_video(AtariSettings(), "train", 1)
    shows = aired(Recording(plan, tuple(Log() for _ in plan.programmes)))
    on = {GAMES[show.programme.shot.game].name for show in shows}
    for family in (interruptions.cut, interruptions.after):
        for draft in drafts(family, shows, 100):
            assert len({draft.answer, *draft.wrong}) == 4
            assert not on & {draft.answer, *draft.wrong}
    for draft in drafts(interruptions.order, shows, 100):
        pairs = [text.split(", ") for text in (draft.answer, *draft.wrong)]
        assert [Counter(column).most_common(2)[1][1] for column in zip(*pairs, strict=True)] == [
            2,
            2,
        ]
    for draft in drafts(interruptions.when, shows, 20):
        assert parse_span(draft.answer) == pytest.approx(draft.evidence[0], abs=0.06)


def test_a_video_that_cannot_be_asked_enough_is_an_error() -> None:
    shot = Shot("seaquest", "random", 0, 0.0, 100.0)
    plan = VideoPlan("train-00003", (0, 0, 3), 100.0, (Programme(shot, None),))
    recording = Recording(plan, (Log(score=[(0.0, 0)], lives=[(0.0, 3)]),))
    with pytest.raises(TaskError, match="different questions; ask fewer"):
        make_tasks(recording, AtariSettings(families=("cut", "score")), 0, "v.mp4")


# ---- the recorded set


def frames_of(task: Task) -> list[np.ndarray]:
    with av.open(task.video) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_tasks_are_sound_and_spread_over_families(short: AtariTasks) -> None:
    assert len(short) == 24 and len({task.video for task in short}) == 2
    for task in short:
        assert task.source == "atari" and task.family in FAMILIES and Path(task.video).is_file()
        assert task.category in ("plot", "temporal", "spatial", "goal")
        assert task.evidence and all(0 <= s < e <= 120 for s, e in task.evidence)
        assert len(task.options) == (4 if task.kind == "mcq" else 0) == len(set(task.options))
    channels = [task for task in short if task.id.startswith("train-00000")]
    assert len({task.family for task in channels}) >= 7
    long = {task.family for task in short if task.id.startswith("train-00001")}
    assert long <= {"lives", "score", "number", "final"}
    assert len({task.question for task in short}) == 24


def test_the_video_shows_the_plan(short: AtariTasks) -> None:
    task = short[0]
    plan = plan_video(short.settings, "train", 0)
    frames = frames_of(task)
    assert len(frames) == 120 * 6 and frames[0].shape == (210, 160, 3)
    for programme in plan.programmes:
        assert programme.cut is not None
        first, last = (round(t * 6) for t in (programme.cut.start, programme.cut.end))
        for edge in (first, last):
            across = np.abs(frames[edge].astype(int) - frames[edge - 1]).mean()
            within = np.abs(frames[edge + 1].astype(int) - frames[edge]).mean()
            assert across > 10 > within
        # the interrupted game goes on where it stood
        resumed = np.abs(frames[last].astype(int) - frames[first - 1]).mean()
        assert resumed < 0.5 * np.abs(frames[last].astype(int) - frames[last - 1]).mean()


@pytest.mark.parametrize("game", [key for key, game in GAMES.items() if game.rooms is not None])
def test_another_room_is_another_picture(game: str) -> None:
    pytest.importorskip("ale_py")
    console = Console(Shot(game, "scripted", 2, 0.0, 60.0), 6)
    frames, rooms = [], []
    for _ in range(60 * 6):
        frames.append(console.step()[40:150].astype(int))
        rooms.append(console.room)
    changed, same = [], []
    for i in range(1, len(rooms) - 2):  # a frame may show the end of one and the start of another
        part = (np.abs(frames[i + 2] - frames[i]).max(axis=-1) > 20).mean()
        if len(set(rooms[i - 1 : i + 3])) == 1:
            same.append(part)
        elif rooms[i - 1] == rooms[i] != rooms[i + 1] == rooms[i + 2]:
            changed.append(part)
    assert len(changed) >= 3
    assert min(changed) > 0.05 > max(same)  # of the pixels


def test_a_game_that_ends_begins_anew_with_all_lives_and_no_points() -> None:
    pytest.importorskip("ale_py")
    console, log = Console(Shot("seaquest", "random", 1, 0.0, 90.0), 6), Log()
    for number in range(90 * 6):
        console.step()
        log.note(number / 6, console)
    assert log.ends and log.lives[0] == (0.0, 4)
    for end in log.ends:
        assert value_at(log.lives, end) == 0 and value_at(log.lives, end + 0.2) == 4
        assert value_at(log.score, end + 0.2) == 0
    assert max(score for _, score in log.score) > 0
    assert Recording.from_dict(PLAN, json.loads(json.dumps(Recording(PLAN, (log,)).as_dict()))) == (
        Recording(PLAN, (log,))
    )


def test_flickering_things_are_in_every_frame() -> None:
    pytest.importorskip("ale_py")
    console = Console(Shot("asteroids", "random", 1, 0.0, 9.0, lead_in=3.0), 6)
    lit = [int((console.step()[30:].max(axis=-1) > 0).sum()) for _ in range(24)]
    assert min(lit) > 0.5 * max(lit)


def test_the_same_settings_record_the_same_bytes(short: AtariTasks, tmp_path: Path) -> None:
    again = AtariTasks("train", root=tmp_path, videos=1, progress=False, **SHORT)
    assert Path(again[0].video).read_bytes() == Path(short[0].video).read_bytes()
    assert [(t.question, t.options, t.answer) for t in again] == [
        (t.question, t.options, t.answer) for t in list(short)[:12]
    ]


def test_asking_again_records_nothing_and_more_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ale_py")
    recorded: list[str] = []
    record = generate.record

    def counted(plan: VideoPlan, *args: Any) -> Recording:
        recorded.append(plan.name)
        return record(plan, *args)

    monkeypatch.setattr(generate, "record", counted)
    dials = {**SHORT, "fps": 2, "questions": 2, "progress": False}
    first = load_tasks("atari", root=tmp_path, videos=1, **dials)
    load_tasks("atari", root=tmp_path, videos=1, **dials)
    assert recorded == ["train-00000"]
    load_tasks("atari", root=tmp_path, videos=2, **dials)
    assert recorded == ["train-00000", "train-00001"]
    Path(first[0].video).with_suffix(".json").unlink()
    load_tasks("atari", root=tmp_path, videos=2, **dials)
    assert recorded == ["train-00000", "train-00001", "train-00000"]
    assert not list(tmp_path.rglob("*.tmp"))
    (manifest,) = tmp_path.rglob("train-2.jsonl")
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert {row["split"] for row in rows} == {"train"}
    same = load_tasks(str(manifest), split="train")
    assert same[0].question == first[0].question


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ale_py")

    def full(plan: VideoPlan, fps: int, path: Path, *args: Any) -> Recording:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(generate, "record", full)
    with pytest.raises(OSError, match="finished videos are kept"):
        load_tasks("atari", root=tmp_path, videos=1, progress=False, **SHORT)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["settings.json"]


def test_the_command_records_and_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ale_py")
    options = ["--root", str(tmp_path), "--videos", "1", "--option", "minutes=[1,1]"]
    for name, value in (("programmes", 3), ("cut_seconds", "[2,3]"), ("fps", 2), ("questions", 2)):
        options += ["--option", f"{name}={value}"]
    assert main(["data", "make", "atari", *options]) == 0
    made = capsys.readouterr()
    assert [line.split(":")[0] for line in made.out.splitlines()] == list(SPLITS)
    assert "atari train: recording" in made.err and "1.0/1.0 minutes" in made.err
    assert main(["data", "list", "atari", *options]) == 0
    listed = capsys.readouterr()
    assert "test-00000-00" in listed.out and not listed.err
    assert main(["data", "validate", "atari"]) == 2
    assert "nothing to validate" in capsys.readouterr().err


# ---- what looking is worth


def asked(family: str, answer: str, *spans: tuple[float, float], options: str = "") -> Task:
    """A question about a video of 100 seconds."""
    kind: Any = "mcq" if options else "open"
    duration = {"duration": 100.0}
    return Task(
        "t", "v.mp4", "?", kind, tuple(options), answer, spans, family=family, metadata=duration
    )


def test_evidence_is_shown_where_a_frame_of_the_overview_lies_in_it() -> None:
    task = asked("cut", "1", (12.5, 20.0), (37.6, 87.5), (90.0, 91.0), (62.0, 63.0))
    assert evidence_shown(task, 4) == 0.75  # 12.5, 37.5, 62.5 and 87.5 s
    assert evidence_shown(task, 1) == 0.25  # 50 s
    assert evidence_shown(task, 0) == 0


def test_a_blind_guess_counts_the_words_of_the_familys_other_questions() -> None:
    tasks = [
        asked("cut", "A", options="xyz"),
        asked("cut", "B", options="zxy"),  # x again, at another letter
        asked("cut", "A", options="yzx"),  # x is offered and was right twice: wrong here
        asked("cut", "C", options="pqr"),  # nothing known: one of three
        asked("lives", "A", options="xy"),  # alone in its family: one of two
        asked("score", "7"),
        asked("score", "7"),
        asked("score", "8"),
        asked("when", "3-4"),
    ]
    # the first: x and y were right once each among the others; of the scores, each its own case
    assert blind_guesses(tasks) == pytest.approx(
        [1 / 2, 1 / 2, 0, 1 / 3, 1 / 2, 1 / 2, 1 / 2, 0, 0]
    )


def test_statistics_of_a_recorded_set(short: AtariTasks) -> None:
    tasks = [short[index] for index in range(len(short))]
    title, categories, head, count, median, longest, guess, *shown = format_stats(
        tasks, "train", (4, 600)
    ).splitlines()
    assert title == "24 questions, 2 videos of 2.0 to 2.0 minutes (4.0 in all), split train"
    named = dict(part.split() for part in categories.partition(": ")[2].split(", "))
    assert sum(map(int, named.values())) == 24 and set(named) <= {task.category for task in tasks}
    families = Counter(task.family for task in tasks)
    assert head.split() == ["K", "all", *sorted(families)]
    assert count.split()[1:] == ["-", "24", *(str(n) for _, n in sorted(families.items()))]
    lengths = [sum(end - start for start, end in task.evidence) for task in tasks]
    assert median.split()[4] == f"{np.median(lengths):.1f}"
    assert longest.split()[4] == f"{max(lengths):.1f}"
    assert guess.split()[4] == f"{100 * np.mean(blind_guesses(tasks)):.1f}"
    assert [line.split()[3] for line in shown] == ["4", "600"]
    few, every = (list(map(float, line.split()[4:])) for line in shown)
    assert set(every) == {100.0}, "a frame every 0.2 s hits all evidence"
    assert few[0] < 50 and few[0] == pytest.approx(
        100 * np.mean([evidence_shown(task, 4) for task in tasks]), abs=0.06
    )


def test_the_command_prints_statistics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ale_py")
    options = ["--root", str(tmp_path), "--videos", "1", "--option", "minutes=[1,1]"]
    for name, value in (("programmes", 3), ("cut_seconds", "[2,3]"), ("fps", 2), ("questions", 2)):
        options += ["--option", f"{name}={value}"]
    assert main(["data", "stats", "atari", *options, "--frame-budgets", "8", "32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 questions, 1 videos of 1.0 to 1.0 minutes") and "test" in lines[0]
    assert [line.split()[3] for line in lines[-2:]] == ["8", "32"]
    assert main(["data", "stats", "mmvu"]) == 2
    assert "stats knows synthetic, synthetic_brief, atari only" in capsys.readouterr().err

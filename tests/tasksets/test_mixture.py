"""Several task sets as one: names, splits, weights, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.builders import SIZE, make_task, write_manifest

from paravt_env.env import LongVideoEnv
from paravt_env.task import TaskError
from paravt_env.tasksets import load_tasks
from paravt_env.tasksets.base import left_out
from paravt_env.tasksets.mixture import part_of
from train.rollout.starts import Starts, sets_of


@pytest.fixture
def sets(clip, other_clip, tmp_path):
    films = [make_task(clip, name) for name in "ab"]
    games = [make_task(other_clip, name) for name in "bcdef"]
    tests = [make_task(clip, "held")]
    own, other = ({"root": str(Path(video).parent)} for video in (clip, other_clip))
    films_file = write_manifest(tmp_path / "films.jsonl", films, tests)
    games_file = write_manifest(tmp_path / "games.jsonl", games)
    return {
        "films": {"tasks": films_file, "weight": 3, **own},
        "games": {"tasks": games_file, "split": "train", **other},
    }


def test_tasks_keep_what_they_ask_and_say_which_set_they_are_of(sets):
    mix = load_tasks("mix", sets=sets, split="train")
    assert mix.ids == ("films/a", "films/b", *(f"games/{name}" for name in "bcdef"))
    assert mix.weights == {"films": 3.0, "games": 1.0}
    assert (part_of(mix[1]), part_of(mix.by_id("games/b"))) == ("films", "games")
    alone = load_tasks(sets["games"]["tasks"], split="train", root=sets["games"]["root"])
    assert mix.by_id("games/c").question == alone.by_id("c").question
    assert mix.by_id("games/c").video == alone.by_id("c").video
    assert part_of(alone[0]) == ""
    with pytest.raises(TaskError, match="did you mean 'films/b'"):
        mix.by_id("films/bb")


def test_a_set_takes_the_split_that_is_asked_for_unless_it_names_its_own(sets):
    mix = load_tasks("mix", sets=sets, split="val")
    assert mix.ids == ("films/held", *(f"games/{name}" for name in "bcdef"))


def test_a_draw_is_of_a_set_as_often_as_its_weight_says_whatever_its_size(sets):
    mix, rng = load_tasks("mix", sets=sets), np.random.default_rng(0)
    drawn = [mix.ids[mix.draw(rng)] for _ in range(4000)]
    assert sum(one.startswith("films/") for one in drawn) == pytest.approx(3000, abs=85)
    for name, expected in (("films/a", 1500), ("films/b", 1500), ("games/f", 200)):
        assert drawn.count(name) == pytest.approx(expected, abs=90)


def test_the_environment_draws_by_the_weights_and_repeats_for_a_seed(sets):
    sets["games"]["weight"] = 1e-9
    env = LongVideoEnv(tasks="mix", tasks_kwargs={"sets": sets}, frame_size=SIZE, frame_budget=1)
    drawn = [env.reset(seed=seed)[1]["task_id"] for seed in range(12)]
    assert set(drawn) == {"films/a", "films/b"}
    assert [env.reset(seed=seed)[1]["task_id"] for seed in range(12)] == drawn
    env.close()


def test_rows_that_are_no_tasks_are_told_with_their_file(sets, tmp_path):
    with (tmp_path / "games.jsonl").open("a") as file:
        file.write('{"id": "odd"}\n')
    with pytest.raises(TaskError, match=r"mix, set 'games': .*games\.jsonl, line 6"):
        load_tasks("mix", sets=sets)
    sets["games"]["strict"] = False
    assert ["games.jsonl, line 6" in line for line in left_out(load_tasks("mix", sets=sets))] == [
        True
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"films": {"tasks": "x.jsonl", "weight": 0}}, "weight of set 'films' is a positive"),
        ({"films": {"tasks": "x.jsonl", "weight": "3"}}, "positive number, not '3'"),
        ({"films": {"tasks": "x.jsonl", "weight": float("nan")}}, "positive number, not nan"),
        ({"films": {"tasks": "x.jsonl", "weight": True}}, "positive number, not True"),
        ({"films": {"weight": 1}}, "set 'films' needs tasks"),
        ({"a/b": {"tasks": "x.jsonl"}}, "text without a slash, not 'a/b'"),
        ({"films": {"tasks": "syntetic"}}, r"set 'films': .*did you mean 'synthetic'"),
        ({"films": {"tasks": "synthetic", "minutez": 3}}, "set 'films': .*minutes"),
        ({}, "sets must map names"),
        (["films.jsonl"], "sets must map names"),
    ],
)
def test_what_is_no_mixture_is_refused(change, message):
    with pytest.raises(TaskError, match=message):
        load_tasks("mix", sets=change)


# --- in training ------------------------------------------------------------------------------


def test_groups_are_of_a_set_by_its_weight_and_its_tasks_take_turns(sets):
    mix = load_tasks("mix", sets=sets)
    starts = Starts(mix.ids, 0, 2, sets_of(mix.ids, mix))
    asked = [one.task_id for one in starts.take(400)]
    assert asked[::2] == asked[1::2]
    films = [one for one in asked[::2] if one.startswith("films/")]
    assert len(films) == pytest.approx(300, abs=27)
    assert films.count("films/a") == pytest.approx(films.count("films/b"), abs=1)
    games = [one for one in asked[::2] if one.startswith("games/")]
    assert all(len(set(games[at : at + 5])) == 5 for at in range(0, len(games) - 5, 5))


def test_a_run_that_goes_on_draws_what_it_would_have_drawn(sets):
    mix = load_tasks("mix", sets=sets)
    one, other = (Starts(mix.ids, seed, 2, sets_of(mix.ids, mix)) for seed in (0, 9))
    one.take(7)
    other.follow(one.state())
    assert other.take(20) == one.take(20)


def test_a_set_without_a_task_that_is_left_is_told(sets):
    mix = load_tasks("mix", sets=sets)
    with pytest.raises(ValueError, match="no task of the set 'films' is left"):
        sets_of(mix.ids[2:], mix)
    assert sets_of(("a",), SimpleNamespace(name="other")) == []

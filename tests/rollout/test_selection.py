"""Which groups are trained: dynamic sampling, ranking, difficulty and length, each one counted."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.rollouts import rollout

from train.common.errors import ConfigError
from train.config.run import RunConfig, TrainConfig
from train.config.selection import SelectionConfig
from train.loop import launch
from train.rollout.difficulty import (
    FILE,
    Pool,
    measure_pass_rates,
    read_pass_rates,
    task_pool,
    teachable,
)
from train.rollout.selection import Selection, over_long_penalty, penalised, reward_weights
from train.rollout.starts import Starts


def selected_from(draw, settings, groups):
    """What is selected where `draw` plays as many groups as are wanted."""
    selection = Selection(settings, groups)
    while selection.wanted:
        selection.add(draw(selection.wanted))
    return selection.selected()


def group(*rewards):
    return [rollout(reward) for reward in rewards]


def dealer(*rounds):
    """Deals the given groups round by round and records how many were asked for."""
    asked, left = [], list(rounds)

    def draw(groups):
        asked.append(groups)
        return left.pop(0)

    return draw, asked


def rewards(groups):
    return [[one.reward for one in group] for group in groups]


def counts(selected):
    """The counts that are not zero."""
    named = {name.removeprefix("selection/"): n for name, n in selected.metrics.items() if n}
    return {name: n for name, n in named.items() if name not in ("rounds", "groups_played")}


def test_by_default_everything_is_trained_flat_groups_too():
    draw, asked = dealer([group(1, 1), group(0, 1)])
    selected = selected_from(draw, SelectionConfig(), 2)
    assert asked == [2]
    assert rewards(selected.kept) == [[1, 1], [0, 1]]
    assert selected.played == selected.kept
    assert counts(selected) == {"groups_kept": 2, "rollouts_played": 4, "rollouts_kept": 4}


def test_a_rollout_without_a_reward_is_left_out_and_counted():
    failed = rollout(stop_reason="video_error", error="gone")
    draw, _ = dealer([[failed, rollout(0), rollout(1)], [failed, failed, failed]])
    selected = selected_from(draw, SelectionConfig(), 2)
    assert rewards(selected.kept) == [[0, 1]]
    assert [len(one) for one in selected.played] == [3, 3]
    assert counts(selected)["rollouts_dropped/error"] == 4
    assert counts(selected)["groups_dropped/empty"] == 1


def test_a_group_that_failed_takes_the_place_of_none_that_can_be_trained():
    failed = [rollout(stop_reason="video_error", error="gone")] * 2
    draw, asked = dealer([failed, group(1, 1), group(0, 1)])
    selected = selected_from(draw, SelectionConfig(oversample=1.5), 2)
    assert asked == [3]
    assert rewards(selected.kept) == [[1, 1], [0, 1]]


def test_dynamic_sampling_plays_until_enough_groups_have_variance():
    draw, asked = dealer(
        [group(1, 1), group(0, 1)], [group(0, 0), group(1, 1)], [group(0, 2), group(0, 3)]
    )
    selected = selected_from(draw, SelectionConfig(drop_zero_variance=True, rounds=5), 2)
    assert asked == [2, 2, 2]
    assert rewards(selected.kept) == [[0, 1], [0, 2]]
    assert selected.metrics["selection/rounds"] == 3
    assert counts(selected) == {
        "groups_kept": 2,
        "rollouts_played": 12,
        "rollouts_kept": 4,
        "groups_dropped/zero_variance": 3,
        "groups_dropped/surplus": 1,
    }


def test_dynamic_sampling_gives_up_visibly_after_the_last_round():
    draw, asked = dealer([group(1, 1)], [group(2, 2)], [group(0, 1)])
    selected = selected_from(draw, SelectionConfig(drop_zero_variance=True, rounds=2), 1)
    assert (len(asked), selected.kept) == (2, [])
    assert selected.metrics["selection/groups_missing"] == 1


RANKED = {"oversample": 1.5, "drop_zero_variance": True, "rank_by_std": True}


def test_ranking_keeps_whole_groups_by_the_std_of_the_reward():
    draw, asked = dealer([group(0, 1), group(1, 1), group(0, 4), group(0, 2, 2)])
    selected = selected_from(draw, SelectionConfig(**RANKED), 2)
    assert asked == [3]
    assert rewards(selected.kept) == [[0, 4], [0, 2, 2]]
    assert counts(selected) == {
        "groups_kept": 2,
        "rollouts_played": 9,
        "rollouts_kept": 5,
        "groups_dropped/zero_variance": 1,
        "groups_dropped/surplus": 1,
    }


def test_defect_27_the_std_of_a_group_counts_only_members_that_are_trained():
    """The first group's variance is all in a rollout that is left out; ranking splits no group."""
    settings = SelectionConfig(**RANKED, max_tokens=20)
    broken = [rollout(0), rollout(0), rollout(9, sampled=17)]
    draw, _ = dealer([broken, group(0, 1, 1), group(0, 0, 3)])
    selected = selected_from(draw, settings, 2)
    assert rewards(selected.kept) == [[0, 0, 3], [0, 1, 1]]
    assert counts(selected)["groups_dropped/zero_variance"] == 1
    assert counts(selected)["rollouts_dropped/over_long"] == 1


@pytest.mark.parametrize(("sampled", "kept"), [(16, 2), (17, 1)])
def test_the_length_of_the_whole_main_conversation_is_bounded(sampled, kept):
    draw, _ = dealer([[rollout(0), rollout(1, sampled=sampled)]])  # 3 + sampled + 1 tokens
    assert len(selected_from(draw, SelectionConfig(max_tokens=20), 1).kept[0]) == kept


def test_stop_reasons_that_are_not_wanted_are_left_out():
    members = [rollout(0, stop_reason=r) for r in ("answered", "unanswered", "turn_limit")]
    draw, _ = dealer([members])
    selected = selected_from(draw, SelectionConfig(stop_reasons=("answered", "turn_limit")), 1)
    assert [one.stop_reason for one in selected.kept[0]] == ["answered", "turn_limit"]
    assert counts(selected)["rollouts_dropped/stop_reason"] == 1


def test_a_group_of_which_nothing_is_left_is_called_empty():
    draw, _ = dealer([[rollout(0, sampled=99), rollout(1, sampled=99)]])
    selected = selected_from(draw, SelectionConfig(drop_zero_variance=True, max_tokens=20), 1)
    assert counts(selected) == {
        "groups_missing": 1,
        "rollouts_played": 2,
        "groups_dropped/empty": 1,
        "rollouts_dropped/over_long": 2,
    }


def test_every_group_is_kept_or_counted_under_a_reason():
    draw, _ = dealer([group(0, 1), group(1, 1), group(0, 4), group(0, 2)])
    metrics = selected_from(draw, SelectionConfig(**RANKED), 1).metrics
    dropped = sum(n for name, n in metrics.items() if "/groups_dropped/" in name)
    assert metrics["selection/groups_kept"] + dropped == metrics["selection/groups_played"] == 4


def test_the_over_long_penalty_falls_linearly_over_the_buffer():
    penalties = [over_long_penalty(n, limit=10, buffer=4) for n in (0, 6, 7, 8, 9, 10, 50)]
    assert penalties == [0.0, 0.0, -0.25, -0.5, -0.75, -1.0, -1.0]
    assert [over_long_penalty(n, limit=10, buffer=0) for n in (10, 11)] == [0.0, -1.0]


def test_the_penalty_counts_sampled_tokens_and_is_a_term_of_the_reward():
    settings = SelectionConfig(over_long_limit=10, over_long_buffer=4, over_long_weight=2.0)
    one = penalised(rollout(1.0, sampled=8), settings)
    assert one.reward == 0.0
    assert one.terms == {"answer": 1.0, "over_long": -0.5, "total": 0.0}
    assert reward_weights(settings) == {"over_long": 2.0}
    assert penalised(rollout(1.0, sampled=6), settings).terms["over_long"] == 0.0


def test_without_a_limit_or_a_reward_nothing_is_penalised():
    one, failed = rollout(1.0, sampled=99), rollout(error="gone")
    assert penalised(one, SelectionConfig()) is one
    assert penalised(failed, SelectionConfig(over_long_limit=1)) is failed
    assert reward_weights(SelectionConfig()) == {}


def test_penalised_rewards_decide_on_variance_and_are_what_is_measured():
    settings = SelectionConfig(drop_zero_variance=True, over_long_limit=10)
    draw, _ = dealer([[rollout(1), rollout(1, sampled=11)]])
    selected = selected_from(draw, settings, 1)
    assert rewards(selected.kept) == rewards(selected.played) == [[1, 0]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"oversample": 0.5}, "oversample"),
        ({"rounds": 0}, "rounds"),
        ({"rounds": 2}, "drop_zero_variance"),
        ({"over_long_buffer": 1}, "over_long_buffer"),
        ({"over_long_limit": -1}, "over_long_limit"),
        ({"stop_reasons": ()}, "stop_reasons"),
        ({"stop_reasons": ("answer",)}, "did you mean 'answered'"),
        ({"stop_reasons": ("video_error",)}, "video_error"),
        ({"prior_rollouts": -1}, "prior_rollouts"),
    ],
)
def test_settings_out_of_range_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        SelectionConfig(**settings)


def player(scores, batches):
    """Plays starts; each task's rollouts take its scores in turn."""
    left = {task: list(values) for task, values in scores.items()}

    def play(starts):
        batches.append(list(starts))
        return [rollout(task=start.task_id, correct=left[start.task_id].pop(0)) for start in starts]

    return play


def test_pass_rates_are_means_over_rollouts_of_different_seeds():
    batches = []
    play = player({"a": [1, 0, 1, 1], "b": [0, 0, 0.5, 0]}, batches)
    assert measure_pass_rates(play, ["a", "b"], 4, rows=3, seed=1) == {"a": 0.75, "b": 0.125}
    assert [len(batch) for batch in batches] == [3, 3, 2]
    starts = [start for batch in batches for start in batch]
    assert [start.task_id for start in starts] == ["a"] * 4 + ["b"] * 4
    assert len({start.seed for start in starts}) == 8
    again = []
    measure_pass_rates(player({"a": [0] * 4, "b": [0] * 4}, again), ["a", "b"], 4, 3, seed=1)
    assert again == batches


def test_a_failed_rollout_counts_as_wrong_in_a_pass_rate():
    def play(starts):
        return [replace(rollout(task="a", correct=1.0), error="gone" if i else "") for i in (0, 1)]

    assert measure_pass_rates(play, ["a"], 2, rows=2, seed=0) == {"a": 0.5}


def test_a_task_that_cannot_be_read_has_no_pass_rate():
    def play(starts):
        """The first task's video is gone, the second one's for a moment."""
        return [
            rollout(task=start.task_id, error="gone" if place < 3 else "")
            for place, start in enumerate(starts)
        ]

    assert measure_pass_rates(play, ["a", "b"], 2, rows=4, seed=0) == {"a": None, "b": 0.0}


def test_tasks_that_are_always_or_never_solved_are_left_out_and_counted():
    pool = teachable({"easy": 1.0, "hard": 0.0, "a": 0.1, "b": 0.9, "harder": 0.0, "gone": None})
    assert pool.ids == ("a", "b")
    assert pool.metrics == {
        "selection/tasks_kept": 2.0,
        "selection/tasks_dropped/always_solved": 1.0,
        "selection/tasks_dropped/never_solved": 2.0,
        "selection/tasks_dropped/unreadable": 1.0,
    }
    with pytest.raises(ConfigError, match="1 are always and 2 never solved, 1 unreadable"):
        teachable({"a": 1.0, "b": 0.0, "c": 0.0, "d": None})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "holds no pass rates"),
        ("[1]", "holds no pass rates"),
        ('{"a": "much"}', "holds no pass rates"),
        ('{"a": 0.5}', "lacks 1 tasks, the first is 'b'"),
        ('{"a": NaN, "b": 0.5}', "the pass rate of 'a' is nan, not from 0 to 1"),
        ('{"a": 0.5, "b": 50}', "the pass rate of 'b' is 50"),
    ],
)
def test_pass_rates_that_cannot_be_used_say_why(tmp_path, text, message):
    path = tmp_path / "rates.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_pass_rates(path, ["a", "b"])


def test_the_pool_is_all_tasks_measured_ones_or_those_of_a_file(tmp_path):
    def pool(play=None, measured=False, **selection):
        config = TrainConfig(
            selection=SelectionConfig(**selection),
            run=RunConfig(name="run", folder=str(tmp_path)),
        )
        config.run.path.mkdir(exist_ok=True)
        return task_pool(config.selection, config.run, ["a", "b"], play, rows=8, measured=measured)

    assert pool().ids == ("a", "b")
    assert pool().metrics == {}
    batches = []
    measured = pool(player({"a": [1, 1], "b": [0, 1]}, batches), prior_rollouts=2)
    assert measured.ids == ("b",)
    assert measured.metrics["selection/tasks_dropped/unreadable"] == 0
    assert len(batches) == 1
    stored = tmp_path / "run" / FILE
    assert json.loads(stored.read_text()) == {"a": 1.0, "b": 0.5}
    assert pool(measured=True, prior_rollouts=2) == measured
    other = tmp_path / "other.json"
    other.write_text('{"a": 0.5, "b": null, "c": 0}')
    assert pool(prior_file=str(other)).ids == ("a",)
    assert pool(prior_file=str(other)).metrics["selection/tasks_dropped/unreadable"] == 1
    stored.unlink()
    with pytest.raises(ConfigError, match="holds no pass rates"):
        pool(measured=True, prior_rollouts=2)


def test_pools_of_other_tasks_or_in_another_order_are_told_apart():
    assert Pool(("a", "b")).digest == Pool(("a", "b"), {"kept": 2.0}).digest
    assert len({Pool(ids).digest for ids in (("a", "b"), ("b", "a"), ("a", "c"))}) == 3


def test_a_collector_plays_oversampled_groups_in_batches_of_its_rows(monkeypatch):
    """Groups stay whole across batches, and only tasks of the pool are drawn."""
    from train.distributed.processes import Processes
    from train.workers import rollout_workers as module
    from train.workers.collector import Collector
    from train.workers.lanes import Lane

    class HearsWorkers(Processes):
        """Rollouts are not gathered, which would make room for the most of all, for each."""

        gather = None

    played = []

    def play(env, agent, starts, progress=None):
        played.append(len(starts))
        return [rollout(task=start.task_id, reward=start.seed) for start in starts]

    monkeypatch.setattr(module, "play", play)
    workers = module.RolloutWorkers([Lane(SimpleNamespace(num_envs=16), None)])
    starts = Starts(("x", "y"), seed=0, size=8)
    collector = Collector(workers, starts, SelectionConfig(), 5, HearsWorkers())
    groups = collector.play(starts.take(5))
    assert played == [16, 16, 8]
    assert [len(group) for group in groups] == [8] * 5
    assert all(len({(one.task_id, one.reward) for one in group}) == 1 for group in groups)
    assert {group[0].task_id for group in groups} == {"x", "y"}


@pytest.mark.parametrize("name", ["over_long", "kl"])
def test_a_term_with_the_name_of_one_that_training_adds_is_refused(name):
    with pytest.raises(ConfigError, match=f"training adds a term '{name}'"):
        launch.all_weights({"answer": 1.0, name: 0.5}, TrainConfig())
    assert launch.all_weights({"answer": 1.0}, TrainConfig()) == {"answer": 1.0}

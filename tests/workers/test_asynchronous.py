"""Asynchronous rollouts: the staleness bound, who waits for whom, lanes, errors and the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import sleep

import pytest

from agents.base import Decision
from paravt_env.protocol import action_from_completion, render_completion
from train.rollout.play import play
from train.rollout.starts import Start
from train.workers.ahead import Ahead, StalledError
from train.workers.lanes import Cancelled, Heartbeat, Lane, divide, play_in_lanes


class Player:
    """Batches are (number, weights that played it); `gate` holds a batch until it is released."""

    def __init__(self, staleness: int, gated: bool = False) -> None:
        self.weights, self.synced, self.count = 0, [], 0
        self.started = [threading.Event() for _ in range(8)]
        self.gates = [threading.Event() for _ in range(8)]
        if not gated:
            for gate in self.gates:
                gate.set()
        self.heartbeat = Heartbeat()
        self.ahead = Ahead(
            self.play, self.sync, staleness, lambda: self.count, heartbeat=self.heartbeat
        )

    def play(self) -> tuple[int, int]:
        number, self.count = self.count, self.count + 1
        self.started[number].set()
        self.gates[number].wait(10)
        self.heartbeat(1, 2)
        return number, self.weights

    def sync(self, version: int) -> None:
        self.weights = version
        self.synced.append(version)


@pytest.mark.parametrize("staleness", [0, 1, 2])
def test_batches_come_in_order_and_within_the_bound(staleness: int) -> None:
    player = Player(staleness)
    played = [player.ahead.take(version) for version in range(6)]
    player.ahead.close()
    assert [one.batch[0] for one in played] == list(range(6))
    assert [one.batch[1] for one in played] == [one.version for one in played]
    assert [one.before for one in played] == list(range(6))
    assert all(0 <= j - one.version <= staleness for j, one in enumerate(played))
    if staleness == 0:
        assert [one.version for one in played] == list(range(6))
        assert player.synced == [1, 2, 3, 4, 5]


def test_a_bound_of_one_plays_the_next_batch_during_the_update() -> None:
    player = Player(1)
    player.ahead.take(0)
    assert player.started[1].wait(10), "the second batch must not wait for the first update"
    assert player.ahead.take(1).version == 0
    assert player.started[2].wait(10)
    assert player.ahead.take(2).version == 1
    player.ahead.close()


def test_a_bound_of_zero_waits_for_the_update() -> None:
    player = Player(0)
    player.ahead.take(0)
    assert not player.started[1].wait(0.05)
    assert player.ahead.take(1).version == 1
    player.ahead.close()


def test_a_bound_of_two_runs_two_batches_ahead_and_no_further() -> None:
    player = Player(2)
    player.ahead.take(0)
    assert player.started[2].wait(10)
    assert not player.started[3].wait(0.05)
    assert player.synced == []
    player.ahead.close()


def test_newer_weights_are_taken_between_two_batches_while_the_learner_waits() -> None:
    player = Player(5, gated=True)
    player.gates[0].set()
    player.ahead.take(0)
    assert player.started[1].wait(10)
    taken: list[int] = []
    waiting = threading.Thread(target=lambda: taken.append(player.ahead.take(1).version))
    waiting.start()
    while player.ahead._offered is None:
        pass
    player.gates[1].set()
    waiting.join(10)
    assert player.started[2].wait(10)
    for gate in player.gates:
        gate.set()
    assert taken == [0]
    assert player.ahead.take(2).version == 1, "batch 2 could have been played with version 0"
    player.ahead.close()


def test_an_error_of_the_player_reaches_the_learner() -> None:
    def fail() -> None:
        raise RuntimeError("no video")

    ahead = Ahead(fail, lambda version: None, 1)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no video"):
            ahead.take(0)
    ahead.close()


def test_rollouts_that_hang_are_an_error_and_closing_does_not_wait_for_them() -> None:
    hung, asked = threading.Event(), threading.Event()

    def hang() -> None:
        asked.set()
        hung.wait(60)

    ahead = Ahead(hang, lambda version: None, 1, patience=0.05)
    with pytest.raises(StalledError, match=r"no turn for 0\.05 s.*parallel\.long_timeout"):
        ahead.take(0)
    assert asked.is_set() and not hung.is_set()
    ahead.close()
    assert ahead._thread is not None and ahead._thread.is_alive()
    hung.set()


def test_slow_rollouts_that_move_are_waited_for() -> None:
    heartbeat = Heartbeat()

    def slow() -> str:
        for turn in range(20):
            sleep(0.05)
            heartbeat(turn, 20)
        return "played"

    ahead = Ahead(slow, lambda version: None, 0, patience=0.7, heartbeat=heartbeat)
    assert ahead.take(0).batch == "played"
    ahead.close()


def test_closing_gives_up_a_batch_between_two_turns_and_it_is_played_again() -> None:
    player = Player(1, gated=True)
    player.gates[0].set()
    player.ahead.take(0)
    assert player.started[1].wait(10)
    closing = threading.Thread(target=player.ahead.close)
    closing.start()
    while not player.ahead._closed:
        pass
    player.gates[1].set()
    closing.join(10)
    assert not closing.is_alive()
    assert player.ahead.resume_point() == 1


def test_a_batch_that_waits_to_be_used_is_where_a_run_resumes() -> None:
    player = Player(1)
    assert player.ahead.resume_point() == 0
    player.ahead.take(0)
    assert player.started[1].wait(10)
    player.ahead.close()
    assert player.ahead.resume_point() == 1


def test_a_negative_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="staleness -1"):
        Player(-1)


def test_groups_are_divided_evenly_and_never_into_empty_lanes() -> None:
    assert divide(4, 4) == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="2 groups cannot be divided over 3 lanes"):
        divide(2, 3)


CALL = render_completion("I should look at both ends first.", [(10.0, 12.0)], "")
ANSWER = render_completion("Now the colour is clear to me.", [], "B")


class Looker:
    """Looks once, then answers; `meet` is called in every turn."""

    def __init__(self, meet: Callable[[], object] = lambda: None) -> None:
        self.meet = meet

    def begin(self, rows):
        self.turn = dict.fromkeys(rows, 0)

    def act(self, observations, rows):
        self.meet()
        texts = [(CALL, ANSWER)[self.turn[row]] for row in rows]
        self.turn = {row: turn + 1 for row, turn in self.turn.items()}
        return [Decision(action_from_completion(text, 3)) for text in texts]


def test_lanes_play_what_one_environment_plays_in_the_same_order(make_vector) -> None:
    starts = [Start(task, 4, seed) for seed, task in enumerate(["colour", "shape", "time"])]
    starts = [start for start in starts for _ in range(2)]
    expected = play(make_vector(6), Looker(), starts)
    lanes = [Lane(make_vector(4), Looker()), Lane(make_vector(2), Looker())]
    assert play_in_lanes(lanes, starts, 2) == expected
    assert play_in_lanes([Lane(make_vector(6), Looker())], starts, 2) == expected
    with pytest.raises(ValueError, match="no whole groups of 4"):
        play_in_lanes(lanes[:1], starts, 4)


def test_lanes_generate_side_by_side(make_vector) -> None:
    both = threading.Barrier(2)
    lanes = [Lane(make_vector(1), Looker(lambda: both.wait(10))) for _ in range(2)]
    rollouts = play_in_lanes(lanes, [Start("colour", 4, 1), Start("shape", 4, 2)], 1)
    assert [one.executed for one in rollouts] == [1, 1]


def test_what_progress_raises_ends_every_lane(make_vector) -> None:
    def stop(done: int, rows: int) -> None:
        raise Cancelled

    lanes = [Lane(make_vector(1), Looker()) for _ in range(2)]
    with pytest.raises(Cancelled):
        play_in_lanes(lanes, [Start("colour", 4, 1), Start("shape", 4, 2)], 1, stop)

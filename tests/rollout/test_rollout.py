"""Rollouts: what `play` records, for scripted and failing rows alike."""

from dataclasses import replace

import numpy as np
import pytest
from support.builders import ListTasks, act, make_task

from agents.base import Completion, Decision, Trajectory
from paravt_env.protocol import action_from_completion, render_completion
from paravt_env.spaces import unbatch
from train.rollout.play import play
from train.rollout.starts import Start


class Script:
    """Plays given turns in every row: texts are completions, dictionaries are bare actions."""

    def __init__(self, *turns, other=None):
        self.turns, self.other = turns, other or {}
        self.begun, self.asked = [], []

    def begin(self, rows):
        self.begun = list(rows)
        self.taken = dict.fromkeys(rows, 0)

    def act(self, observations, rows):
        self.asked.append(list(rows))
        decisions = []
        for row in rows:
            turn = self.other.get(row, self.turns)[self.taken[row]]
            self.taken[row] += 1
            if isinstance(turn, str):
                completion = Completion(turn, (), (), ())
                decisions.append(Decision(action_from_completion(turn, 3), completion))
            else:
                decisions.append(Decision(turn))
        return decisions


class Writer(Script):
    """A script that leaves trajectories behind."""

    def trajectories(self, row):
        one = np.array([row])
        flag, number = np.array([True]), np.zeros(1, np.float32)
        return [Trajectory(one, one, flag, number, np.zeros(1, np.int8))]


CALL = render_completion("I should look at both ends first.", [(10.0, 12.0), (3.0, 1.0)], "")
ANSWER = render_completion("Now the colour is clear to me.", [], "B")


def test_a_rollout_records_turns_crops_terms_and_answer(make_vector):
    env = make_vector(2)
    agent = Script(CALL, ANSWER)
    first, second = play(env, agent, [Start("colour", 4, 7)] * 2)
    assert first == second
    assert (first.task_id, first.family, first.frame_budget) == ("colour", "colour", 4)
    assert (first.calls, first.executed, first.parallel) == (2, 1, 2)
    assert [turn["completion"] for turn in first.turns] == [CALL, ANSWER]
    assert [crop["status"] for crop in first.turns[0]["crops"]] == ["ok", "reversed"]
    assert first.turns[0]["crops"][0]["window"] == (10.0, 12.0)
    assert first.turns[0]["crops"][0]["frames"] == 2
    assert first.turns[1]["crops"] == []
    assert (first.answer, first.correct, first.stop_reason) == ("B", 1.0, "answered")
    assert first.terms["answer"] == 1.0
    assert first.reward == first.terms["total"] > 1.0
    assert first.frames_seen == 6
    assert first.evidence_recall == pytest.approx(0.2)
    assert first.trajectories == ()
    assert first.error == ""
    assert agent.begun == [0, 1]


def test_rows_end_on_their_own_and_are_not_asked_again(make_vector):
    agent = Script(CALL, ANSWER, other={1: (ANSWER,)})
    long, short = play(make_vector(2), agent, [Start("colour"), Start("colour")])
    assert agent.asked == [[0, 1], [0]]
    assert (len(long.turns), len(short.turns)) == (2, 1)
    assert (short.calls, short.parallel, short.answer) == (0, 0, "B")
    assert short.reward == short.terms["total"] > 0.5


def test_fewer_starts_than_rows_leave_the_rest_idle(make_vector):
    env = make_vector(3)
    play(env, Script(ANSWER), [Start("colour")] * 3)
    (only,) = play(env, Script(ANSWER), [Start("shape")])
    assert (only.task_id, only.correct) == ("shape", 0.0)
    with pytest.raises(ValueError, match="0 starts"):
        play(env, Script(ANSWER), [])


def test_more_starts_than_rows_are_played_in_turn(make_vector):
    env = make_vector(2)
    tasks = ["colour", "shape", "shape", "colour", "colour"]
    told, ended, script = [], [], Script(ANSWER)
    rollouts = play(
        env,
        script,
        [Start(task) for task in tasks],
        lambda *done: told.append(done),
        lambda place, one: ended.append((place, one.task_id)),
    )
    assert [one.task_id for one in rollouts] == tasks
    assert [one.correct for one in rollouts] == [float(task == "colour") for task in tasks]
    assert sorted(ended) == list(enumerate(tasks))
    assert told == [(2, 5), (4, 5), (5, 5)]
    assert script.begun == [0]


def test_a_group_with_one_seed_shares_its_task_and_frame_budget(make_vector):
    env = make_vector(4, frame_budget={"kind": "choice", "values": [2, 4, 8]})
    starts = [Start(seed=seed) for seed in (3, 3, 11, 11)]
    rollouts = play(env, Script(ANSWER), starts)
    drawn = [(one.task_id, one.frame_budget) for one in rollouts]
    assert drawn[0] == drawn[1]
    assert drawn[2] == drawn[3]
    assert drawn == [(one.task_id, one.frame_budget) for one in play(env, Script(ANSWER), starts)]


def test_a_video_that_cannot_be_read_is_a_counted_rollout(make_vector, clip, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    good = make_task(clip)
    env = make_vector(2, tasks=ListTasks([good, replace(good, id="broken", video=str(broken))]))
    agent = Writer(ANSWER)
    bad, fine = play(env, agent, [Start("broken"), Start("colour")])
    assert (bad.stop_reason, bad.reward, bad.terms, bad.correct) == ("video_error", 0.0, {}, 0.0)
    assert "broken" in bad.error
    assert (bad.turns, bad.trajectories, bad.compliant) == ((), (), False)
    assert (fine.stop_reason, len(fine.trajectories)) == ("answered", 1)
    assert fine.trajectories[0].prompt_ids.tolist() == [1]
    assert agent.asked == [[1]]


def test_all_videos_broken_asks_the_agent_nothing(make_vector, clip, tmp_path):
    broken = replace(make_task(clip), video=str(tmp_path / "missing.mp4"))
    agent = Script(ANSWER)
    rollouts = play(make_vector(2, tasks=ListTasks([broken])), agent, [Start(), Start()])
    assert [one.stop_reason for one in rollouts] == ["video_error"] * 2
    assert agent.asked == []


def test_an_agent_without_text_leaves_empty_completions(make_vector):
    (rollout,) = play(make_vector(1), Script(act((1.0, 2.0)), act(answer="B")), [Start("colour")])
    assert [turn["completion"] for turn in rollout.turns] == ["", ""]
    assert (rollout.calls, rollout.executed, rollout.correct) == (1, 1, 1.0)


def test_defect_25_calls_count_whether_or_not_they_succeed(make_vector):
    windows = [(1.0, 2.0), (float("nan"), 2.0), (50.0, 60.0)]
    (rollout,) = play(make_vector(1), Script(act(*windows), act(answer="A")), [Start("colour")])
    assert (rollout.calls, rollout.executed, rollout.parallel) == (3, 1, 3)


def test_a_row_of_an_info_holds_only_what_the_row_has():
    infos = {
        "turn": np.array([1, 2]),
        "_turn": np.array([True, True]),
        "terms": {"a": np.array([0.5, 0.0]), "_a": np.array([True, False])},
        "_terms": np.array([True, False]),
    }
    assert unbatch(infos, 0) == {"turn": 1, "terms": {"a": 0.5}}
    assert unbatch(infos, 1) == {"turn": 2}

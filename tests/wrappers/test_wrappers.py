from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from support.builders import ListTasks, make_task

from paravt_env.protocol import render_completion
from paravt_env.spaces import UnicodeText
from paravt_env.wrappers import (
    ArrayAction,
    ArrayCodec,
    ArrayObservation,
    CompletionAction,
    RecordRewardTerms,
    VectorCompletionAction,
)


def test_completion_action_takes_text(make_env):
    env = CompletionAction(make_env())
    assert env.action_space == UnicodeText()
    env.reset(seed=0, options={"task_id": "colour"})
    info = env.step(render_completion("Look at both.", [(1, 3), (8, 9)]))[-1]
    assert [crop["window"] for crop in info["crops"]] == [(1.0, 3.0), (8.0, 9.0)]
    _, reward, terminated, _, info = env.step(render_completion("It is blue.", answer="B"))
    assert terminated and info["answer"] == "B" and reward > 0


def test_wrappers_refuse_what_they_cannot_wrap(make_env):
    for wrapper in (CompletionAction, RecordRewardTerms):
        with pytest.raises(TypeError, match="this wraps a LongVideoEnv, not a CartPoleEnv"):
            wrapper(gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match="may be a text already"):
        CompletionAction(CompletionAction(make_env()))
    env = CompletionAction(make_env())
    env.reset(seed=0)
    for action in (None, 3, b"text"):
        with pytest.raises(ValueError, match="the action is a text, what the model wrote"):
            env.step(action)


def test_vector_completion_action_takes_one_text_a_row(make_vector):
    vector = VectorCompletionAction(make_vector(2))
    vector.reset(seed=0, options={"task_id": "colour"})
    answer, call = render_completion("Clear.", answer="B"), render_completion("Look.", [(1, 3)])
    _, _, terminated, _, infos = vector.step([answer, call])
    assert terminated.tolist() == [True, False] and infos["crops"][1][0]["frames"] == 2
    _, rewards, terminated, *_ = vector.step(["", answer])
    assert terminated.tolist() == [False, True] and rewards[0] == 0 < rewards[1]


def test_vector_completion_action_takes_texts_alone(make_vector):
    vector = VectorCompletionAction(make_vector(2))
    vector.reset(seed=0, options={"task_id": "colour"})
    for wrong in (None, 0, b""):
        with pytest.raises(ValueError, match="the action is a text, what the model wrote"):
            vector.step(["", wrong])


@pytest.fixture
def letters(clip):
    """A task set whose only question is answered by one of three letters."""
    return ListTasks([make_task(clip)])


def test_array_action_refuses_questions_that_no_letter_answers(make_env, letters, clip):
    with pytest.raises(ValueError, match=r"2 of 4 tasks.*one of 10 letters, task 'time'"):
        ArrayAction(make_env())
    tasks = ListTasks(
        [
            make_task(clip, "a", family="count"),
            make_task(clip, "b", family="open", kind="open", options=(), answer="red"),
        ]
    )
    with pytest.raises(ValueError, match=r"tasks_kwargs=\{'families': \['count'\]\}"):
        ArrayAction(make_env(tasks=tasks))
    with pytest.raises(ValueError, match=r"one of 2 letters, task 'colour'.*mcq, 3 options"):
        ArrayAction(make_env(tasks=letters), options=2)
    ArrayAction(make_env(tasks=letters), options=3)


def test_array_action_maps_segments_and_letters(make_env, letters):
    env = ArrayAction(make_env(tasks=letters), segments=10, options=4)
    assert env.action_space.nvec.tolist() == [11, 11, 11, 5]
    env.reset(seed=0, options={"task_id": "colour"})
    info = env.step(np.array([1, 0, 10, 2]))[-1]
    assert [crop["window"] for crop in info["crops"]] == [(0.0, 3.0), (27.0, 30.0)]
    assert env.step(np.array([0, 0, 0, 2]))[-1]["answer"] == "B"


def test_array_action_crops_the_middle_of_a_long_segment(make_env, letters):
    env = ArrayAction(make_env(tasks=letters, max_crop_seconds=4.0), segments=3)
    env.reset(seed=0)
    crop = env.step(np.array([2, 0, 0, 0]))[-1]["crops"][0]
    assert crop["window"] == (13.0, 17.0) and crop["status"] == "ok"


@pytest.mark.parametrize("arguments", [{"segments": 0}, {"options": 11}, {"options": 0}])
def test_array_action_rejects_bad_sizes(make_env, arguments):
    with pytest.raises(ValueError, match="segments must be"):
        ArrayAction(make_env(), **arguments)


def test_array_observation_is_one_hot_and_without_text(make_env, clip):
    tasks = ListTasks(
        [
            make_task(clip, "a", options=("red", "blue"), answer="A", family="colour"),
            make_task(clip, "b", options=("two", "red", "one"), answer="A", family="count"),
        ]
    )
    env = ArrayObservation(make_env(tasks=tasks))
    observation, _ = env.reset(seed=0, options={"task_id": "b"})
    assert observation in env.observation_space
    codec = env.codec
    assert codec.families == ("colour", "count")
    assert codec.option_texts == ("blue", "one", "red", "two")
    assert observation["family"].tolist() == [0, 1]
    assert observation["options"].reshape(10, 4)[:4].tolist() == [
        [0, 0, 0, 1],
        [0, 0, 1, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 0],
    ]
    assert observation["frames"].shape == (12 * 32, 64, 3) and observation["frames"][: 4 * 32].any()
    assert observation["duration"].tolist() == [30.0]
    assert "question" not in observation and "feedback" not in observation


def test_array_observation_says_which_words_the_question_has(make_env, clip):
    tasks = [
        make_task(clip, "a", question="Is it\nA. red, or the 2nd?", options=("x A. y", "z")),
        make_task(clip, "b", question="Which RED one?\nB. Look.", kind="open", options=()),
    ]
    env = ArrayObservation(make_env(tasks=ListTasks(tasks)))
    assert " ".join(env.codec.words) == "2nd a b is it look one or red the which"
    assert env.codec.option_texts == ("x A. y", "z")
    words = {}
    for task in tasks:
        arrays, _ = env.reset(seed=0, options={"task_id": task.id})
        places = np.flatnonzero(arrays["words"])
        words[task.id] = {env.codec.words[i] for i in places}
        options = arrays["options"].reshape(10, 2).sum(axis=1).tolist()
        assert options == ([1, 1, *[0] * 8] if task.options else [0] * 10)
    assert words == {
        "a": {"is", "it", "a", "red", "or", "the", "2nd"},
        "b": {"which", "red", "one", "b", "look"},
    }


def test_a_vocabulary_is_shared_by_splits_or_says_what_is_missing(make_env, clip):
    train, test = make_task(clip, "a"), make_task(clip, "b", question="Which shade?")
    codec = ArrayCodec.of([train])
    env = ArrayObservation(make_env(tasks=ListTasks([test])), codec)
    with pytest.raises(ValueError, match=r"word 'shade' is not .* ArrayCodec\.of"):
        env.reset(seed=0)
    both = ArrayCodec.of([train], [test])
    env = ArrayObservation(make_env(tasks=ListTasks([test])), both)
    assert env.reset(seed=0)[0] in env.observation_space
    with pytest.raises(ValueError, match="at least one task"):
        ArrayCodec.of([])


def test_array_wrappers_wrap_the_single_environment(make_env):
    with pytest.raises(TypeError, match="LongVideoEnv"):
        ArrayAction(gym.make("CartPole-v1"))

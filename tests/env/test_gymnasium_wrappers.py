"""Gymnasium's own wrappers, vectorisations and specs around the environment: they work."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.wrappers import DelayObservation, FrameStackObservation, TimeLimit
from support.builders import SIZE, act, make_task, same, write_manifest

import paravt_env  # noqa: F401
from paravt_env.settings import UnknownArgument, make_settings
from paravt_env.spaces import batch_actions
from paravt_env.wrappers import (
    ArrayAction,
    ArrayCodec,
    ArrayObservation,
    CompletionAction,
    RecordRewardTerms,
    VectorRecordRewardTerms,
)

ID = "ParaVT-LongVideo-v0"


@pytest.fixture
def arguments(clip, tmp_path):
    (tmp_path / "clip.mp4").hardlink_to(clip)
    tasks = write_manifest(tmp_path / "tasks.jsonl", [make_task("clip.mp4")])
    return {
        "tasks": tasks, "frame_size": SIZE, "max_crops": 3, "frame_budget": 2,
        "frames_per_crop": 2,
    }  # fmt: skip


def cut_short(env):
    """Reset, and one turn that calls."""
    env.reset(seed=0)
    return env.step(act((1.0, 2.0)))[1:]


@pytest.mark.parametrize("by", ["wrapper", "argument"])
def test_an_episode_that_a_time_limit_ends_is_recorded_and_has_no_terms(arguments, by):
    limit = {"max_episode_steps": 1} if by == "argument" else {}
    made = gym.make(ID, **limit, **arguments)
    env = RecordRewardTerms(made if limit else TimeLimit(made, 1))
    reward, terminated, truncated, info = cut_short(env)
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info["episode"].keys() == {"r", "l", "t"} and "reward_terms" not in info
    assert (env.unscored, env.term_queues) == (1, {})
    env.reset(seed=0)
    info = env.step(act(answer="B"))[-1]
    assert info["episode"]["answer"] == 1.0 and env.unscored == 1


def test_the_vector_environment_takes_the_limit_that_make_vec_hands_it(arguments):
    """And equals the single environments under `TimeLimit`, row by row."""
    vector = gym.make_vec(ID, num_envs=2, max_episode_steps=2, **arguments)
    recorded = VectorRecordRewardTerms(vector)
    recorded.reset(seed=0)
    calls = batch_actions([act((1.0, 2.0))] * 2, 3)
    _, _, terminated, truncated, _ = recorded.step(calls)
    assert not (terminated | truncated).any()
    one = batch_actions([act((3.0, 4.0)), act(answer="B")], 3)
    _, rewards, terminated, truncated, infos = recorded.step(one)
    assert terminated.tolist() == [False, True] and truncated.tolist() == [True, True]
    assert rewards[0] == 0 < rewards[1] and infos["_reward_terms"].tolist() == [False, True]
    assert recorded.unscored == 1 and vector.unwrapped.idle.all()
    single = gym.make(ID, max_episode_steps=2, **arguments)
    single.reset(seed=1)
    single.step(act((1.0, 2.0)))
    assert single.step(act(answer="B"))[1:4] == (rewards[1], True, True)
    with pytest.raises(ValueError, match="max_episode_steps must be at least 1"):
        gym.make_vec(ID, num_envs=2, max_episode_steps=0, **arguments)


@pytest.mark.parametrize("arrays", [False, True])
def test_stacked_and_delayed_observations(arguments, arrays):
    def made():
        env = gym.make(ID, **arguments)
        return ArrayObservation(ArrayAction(env)) if arrays else env

    def played(env):
        first = env.reset(seed=0)[0]
        action = np.array([1, 0, 0, 0]) if arrays else act((1.0, 2.0))
        return first, env.step(action)[0]

    first, then = played(made())
    stacked = played(FrameStackObservation(made(), 2, padding_type="zero"))
    assert np.array_equal(stacked[0]["frames"][1], first["frames"])
    assert not stacked[0]["frames"][0].any()
    assert np.array_equal(stacked[1]["frames"], np.stack([first["frames"], then["frames"]]))
    none, late = played(DelayObservation(made(), 1))
    assert not none["frames"].any() and same(late["frames"], first["frames"])
    if not arrays:
        assert stacked[0]["question"] == ("", first["question"])
        assert (none["question"], late["question"]) == ("", first["question"])


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_environments_that_differ_are_vectorised_together(arguments, kind):
    def made(turns):
        return lambda: gym.make(ID, **arguments, max_turns=turns)

    makers = [made(1), made(2)]
    if kind == "sync":
        vector = SyncVectorEnv(makers, observation_mode="different")
    else:
        vector = AsyncVectorEnv(makers, shared_memory=False, observation_mode="different")
    observations, _ = vector.reset(seed=0)
    assert observations["frames"].shape[0] == 2 and len(set(observations["question"])) == 1
    assert observations in vector.observation_space
    observations = vector.step(batch_actions([act((1.0, 2.0))] * 2, 3))[0]
    assert observations["must_answer"].tolist() == [1, 0]
    vector.close()


def again(env):
    """The environment that its spec makes, by way of JSON."""
    return gym.make(EnvSpec.from_json(env.spec.to_json()))


def test_specs_of_wrapped_environments_survive_json(arguments):
    made = gym.make(ID, **arguments)
    assert again(ArrayAction(made, segments=5, options=4)).action_space.nvec.tolist() == [6] * 3 + [
        5
    ]
    text = again(CompletionAction(made))
    text.reset(seed=0)
    assert text.step("<answer>B</answer>")[1] > 0
    both = ArrayObservation(ArrayAction(made))
    assert again(both).observation_space == both.observation_space
    more = ArrayCodec(("colour", "other"), ("which", "colour", "shade"), ("red", "blue", "green"))
    assert again(ArrayObservation(made, more)).codec == more


@pytest.mark.parametrize("vector", [False, True])
def test_numpy_to_torch_leaves_the_text_alone(arguments, vector):
    pytest.importorskip("array_api_compat", reason="gymnasium[torch] is not installed")
    torch = pytest.importorskip("torch")
    from gymnasium.wrappers import NumpyToTorch as Single
    from gymnasium.wrappers.vector import NumpyToTorch as Several

    if vector:
        env = Several(gym.make_vec(ID, num_envs=2, **arguments))
        action = batch_actions([act((1.0, 2.0)), act(answer="B")], 3)
    else:
        env, action = Single(gym.make(ID, **arguments)), act((1.0, 2.0))
    action |= {key: torch.from_numpy(action[key]) for key in ("crops", "crop_mask")}
    observation, info = env.reset(seed=0)
    assert torch.is_tensor(observation["frames"])
    question = "Which colour?\nA. red\nB. blue\nC. green"
    assert observation["question"] == ((question,) * 2 if vector else question)
    assert list(info["task_id"]) == ["colour"] * 2 if vector else info["task_id"] == "colour"
    info = env.step(action)[-1]
    assert info["turn"].tolist() == ([1, 1] if vector else 1)


def test_an_unknown_argument_is_a_type_error_too():
    """TorchRL's `GymEnv` tries `frameskip`, and goes by the type and the words of the error."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'frameskip': environment"):
        gym.make(ID, frameskip=1)
    with pytest.raises(UnknownArgument, match="did you mean 'max_crops'"):
        make_settings({"max_crop": 1})


def test_torchrl_takes_the_arrays_and_names_what_it_cannot_take(arguments):
    libs = pytest.importorskip("torchrl.envs.libs.gym")
    with pytest.raises(KeyError, match="UnicodeText"):
        libs.GymEnv(ID, **arguments)
    env = libs.GymWrapper(ArrayObservation(ArrayAction(gym.make(ID, **arguments))))
    assert env.rollout(2)["frames"].shape[-1] == 3

"""The agent of Stable-Baselines3: what it sees, how it learns, that it plays like any agent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.builders import ListTasks, make_task, same

pytest.importorskip("stable_baselines3", reason="the sb3 extra is not installed")
torch = pytest.importorskip("torch")

from stable_baselines3.common.policies import MultiInputActorCriticPolicy  # noqa: E402

from agents.base import Agent  # noqa: E402
from agents.sb3.agent import POLICY, QUESTION, FrameExtractor, SB3Agent, _arrays  # noqa: E402
from agents.sb3.training import SB3Config, learn, predecode, training_envs  # noqa: E402
from paravt_env.settings import EnvSettings  # noqa: E402
from paravt_env.wrappers import ArrayAction, ArrayCodec, ArrayObservation  # noqa: E402
from train.config.evaluation import EvalConfig  # noqa: E402
from train.config.recipe import load  # noqa: E402
from train.config.run import TrainConfig  # noqa: E402
from train.evaluation.agents import evaluated_agent  # noqa: E402
from train.evaluation.evaluate import evaluate  # noqa: E402
from train.rollout.play import play  # noqa: E402
from train.rollout.starts import Start  # noqa: E402

ROOT = Path(__file__).parents[2]
SMALL = {"frame_size": (16, 16), "frame_budget": 3, "max_crops": 2, "frames_per_crop": 2}


@pytest.fixture
def three(clip):
    """Tasks whose answer is always B."""
    return ListTasks(
        [make_task(clip, name, question=f"Which {name}?") for name in ("one", "two", "three")]
    )


@pytest.fixture
def settings(three):
    return EnvSettings(three, **SMALL, max_turns=1, reward={"weights": {"format_anchor": 0.0}})


@pytest.fixture
def codec(three):
    return ArrayCodec.of(three.tasks)


@pytest.fixture
def policy(codec, make_env, make_vector, three):
    """Random weights over the arrays of the small environment."""
    torch.manual_seed(0)
    arrays = _arrays(codec, make_vector(1, tasks=three, **SMALL))
    choices = ArrayAction(make_env(tasks=three, **SMALL), 6, 3).action_space
    return MultiInputActorCriticPolicy(arrays, choices, lambda _: 1e-3, **POLICY)


def arrays_of(env):
    """One batch of what SB3 feeds an extractor, from a reset observation."""
    arrays, _ = env.reset(seed=0)
    batch = {
        key: torch.as_tensor(np.asarray(value)[None], dtype=torch.float32)
        for key, value in arrays.items()
    }
    batch["frames"] = batch["frames"].permute(0, 3, 1, 2) / 255
    for key, size in (("turn", 5), ("must_answer", 2)):
        batch[key] = torch.nn.functional.one_hot(batch[key].long(), size).float()
    return batch


# --- the network ----------------------------------------------------------------------------------


@pytest.fixture
def batch_and_extractor(make_env, make_vector, three, codec):
    arrays = _arrays(codec, make_vector(1, tasks=three, **SMALL))
    torch.manual_seed(0)
    extractor = FrameExtractor(arrays, width=8, heads=2)
    return arrays_of(ArrayObservation(make_env(tasks=three, **SMALL), codec)), extractor


def test_the_network_sees_the_frames_shown_and_the_question(batch_and_extractor):
    batch, extractor = batch_and_extractor
    before = extractor(batch)
    assert before.shape == (1, extractor.features_dim) == (1, (4 + 1) * 2 + 2 * 8)

    def changed(key, value, where=...):
        other = {name: tensor.clone() for name, tensor in batch.items()}
        other[key][where] = value
        return not torch.equal(extractor(other), before)

    rows = [slice(16 * i, 16 * (i + 1)) for i in range(4)]  # three frames and one of padding
    assert [changed("frames", 0.5, (0, slice(None), row)) for row in rows] == [True] * 3 + [False]
    assert changed("words", 1.0) and changed("must_answer", 1.0)
    assert not changed("timestamps", 9.0)


def test_frames_keep_their_places(batch_and_extractor):
    batch, extractor = batch_and_extractor
    first, second = slice(0, 16), slice(16, 32)
    swapped = {name: tensor.clone() for name, tensor in batch.items()}
    swapped["frames"][:, :, first] = batch["frames"][:, :, second]
    swapped["frames"][:, :, second] = batch["frames"][:, :, first]
    one, other = extractor(batch)[0], extractor(swapped)[0]
    torch.testing.assert_close(one[[0, 1, 2, 3]], other[[2, 3, 0, 1]])
    torch.testing.assert_close(one[4:], other[4:])
    assert one[6:8].tolist() == [0.0, 0.0] and one[:2].abs().sum() > 0


def test_scores_compare_each_frame_with_the_question(batch_and_extractor):
    batch, extractor = batch_and_extractor
    asked = torch.cat([batch[key].flatten(1) for key in QUESTION], 1)
    frame = batch["frames"][:, :, 16:32]  # the second
    features = torch.relu(extractor.look(extractor.cnn(frame)))[0]
    queries = extractor.queries(asked)[0].reshape(2, 8)
    out = extractor(batch)[0]
    torch.testing.assert_close(out[2:4], queries @ features / 8**0.5)
    torch.testing.assert_close(out[8:10], out[:8].reshape(4, 2).amax(0))
    assert (out[10:18] >= features - 1e-6).all()
    torch.testing.assert_close(out[18:], torch.relu(extractor.question(asked))[0])


# --- playing --------------------------------------------------------------------------------------


def test_it_plays_in_the_vector_environment_as_on_the_arrays(
    policy, codec, make_env, make_vector, three
):
    vector = make_vector(4, tasks=three, **SMALL)
    agent = SB3Agent(policy, codec, vector)
    assert isinstance(agent, Agent)
    starts = [Start(name, seed=3) for name in ("three", "one", "two")]
    rollouts = play(vector, agent, starts)
    env = ArrayObservation(ArrayAction(make_env(tasks=three, **SMALL), agent.segments, 3), codec)
    for start, rollout in zip(starts, rollouts, strict=True):
        arrays, _ = env.reset(seed=3, options={"task_id": start.task_id})
        turns, ended = [], False
        while not ended:
            choices, _ = policy.predict(arrays, deterministic=True)
            arrays, _, terminated, truncated, info = env.step(choices)
            turns.append([crop["window"] for crop in info["crops"]])
            ended = terminated or truncated
        assert same([[crop["window"] for crop in turn["crops"]] for turn in rollout.turns], turns)
        assert (rollout.answer, rollout.stop_reason) == (info["answer"], info["stop_reason"])
        assert rollout.terms == info["reward_terms"]


def test_a_draw_is_not_always_the_likeliest(policy, codec, make_vector, three):
    vector = make_vector(3, tasks=three, **SMALL)
    observations, _ = vector.reset(seed=0)
    torch.manual_seed(0)
    agent = SB3Agent(policy, codec, vector, deterministic=False)
    drawn = [agent.act(observations, [0])[0].action["crops"].tolist() for _ in range(8)]
    assert any(crops != drawn[0] for crops in drawn)


def test_it_is_saved_without_pickle_and_plays_on(policy, codec, make_vector, three, tmp_path):
    vector = make_vector(3, tasks=three, **SMALL)
    agent = SB3Agent(policy, codec, vector)
    agent.save(tmp_path / "policy")
    assert sorted(path.name for path in (tmp_path / "policy").iterdir()) == [
        "policy.safetensors",
        "sb3.json",
    ]
    again = SB3Agent.load(tmp_path / "policy", vector)
    assert again.codec == codec and again.segments == 6
    observations, _ = vector.reset(seed=0)
    for one, other in zip(
        agent.act(observations, [0, 2]), again.act(observations, [0, 2]), strict=True
    ):
        assert same(one.action, other.action)


@pytest.mark.parametrize(
    "change", [{"frame_size": (16, 32)}, {"frame_budget": 9}, {"max_crops": 1}, {"max_turns": 2}]
)
def test_another_environment_is_refused(policy, codec, make_vector, three, tmp_path, change):
    SB3Agent(policy, codec, make_vector(1, tasks=three, **SMALL)).save(tmp_path)
    other = make_vector(1, tasks=three, **{**SMALL, **change})
    with pytest.raises(ValueError, match="trained on other arrays"):
        SB3Agent(policy, codec, other)
    with pytest.raises(ValueError, match="trained on other arrays"):
        SB3Agent.load(tmp_path, other)


def test_it_goes_through_the_evaluation_of_an_lmm(policy, codec, make_vector, three, tmp_path):
    vector = make_vector(2, tasks=three, **SMALL)
    SB3Agent(policy, codec, vector).save(tmp_path)
    config = TrainConfig()
    config.agent = replace(config.agent, checkpoint=str(tmp_path))
    agent = evaluated_agent(config)(vector)
    assert isinstance(agent, SB3Agent)
    report = evaluate(agent, vector, three, EvalConfig(frame_budgets=(3,)))
    assert len(report.rows) == 3 and not report.errors
    assert {row.frame_budget for row in report.rows} == {3}


# --- learning -------------------------------------------------------------------------------------


def test_environments_share_their_frames(settings, codec):
    envs = training_envs(settings, codec, SB3Config(envs=3, segments=5, options=3))
    predecode(envs, 5)
    store = envs.envs[0].unwrapped.simulation.video.store
    assert store.decoded == 3 + 5 * 2
    envs.reset()
    envs.step(np.array([[1, 2, 0], [3, 4, 0], [5, 0, 0]]))
    assert store.decoded == 3 + 5 * 2
    envs.close()


def test_it_learns_a_constant_answer(settings, codec, make_vector):
    seen = []
    config = SB3Config(
        steps=1024, envs=4, segments=2, options=3, horizon=32, batch=64, learning_rate=3e-3
    )
    model = learn(replace(settings, max_turns=0), codec, config, lambda *at: seen.append(at))
    assert [turns for turns, _ in seen] == [128 * i for i in range(1, 9)]
    vector = make_vector(3, tasks=settings.tasks, **SMALL, max_turns=0)
    starts = [Start(name) for name in ("one", "two", "three")]
    rollouts = play(vector, SB3Agent(model.policy, codec, vector), starts)
    assert [rollout.answer for rollout in rollouts] == ["B"] * 3


def test_the_examples_recipe_is_the_one_it_says():
    config = load(TrainConfig, ROOT / "examples" / "sb3_count.yaml")
    assert config.env.capacity == 12 and config.env.max_crops == 1
    assert config.evaluation.frame_budgets == (12,)
    assert config.env.reward == {
        "gain": "evidence",
        "evidence": "recall",
        "weights": {"format_anchor": 0.0},
    }

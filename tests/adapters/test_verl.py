"""verl's real base class plays through the agent loop; skipped where verl is not installed."""

import asyncio
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from support.builders import SIZE, make_task, write_manifest

pytest.importorskip("verl")
pytest.importorskip("ray")

from omegaconf import OmegaConf
from support.learning import SHAPE
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, DictConfigWrap
from verl.workers.rollout.replica import TokenOutput

from agents.model.mini import build_mini
from paravt_env.protocol import render_completion
from train.adapters import verl

CALLS = render_completion("look", [(1, 2), (30, 10)])
ANSWER = render_completion("so", answer="B")


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return str(build_mini(tmp_path_factory.mktemp("mini"), ["look so crop_video"] * 4, SHAPE))


@pytest.fixture
def game(clip, tmp_path):
    tasks = write_manifest(tmp_path / "tasks.jsonl", [make_task(clip)])
    root = str(clip).rpartition("/")[0]
    return {
        "tasks": tasks, "tasks_kwargs": {"root": root}, "frame_size": list(SIZE), "max_crops": 3,
        "frames_per_crop": 2, "frame_budget": 4, "max_turns": 2,
    }  # fmt: skip


class Server:
    """Says the given turns; keeps what it was asked."""

    def __init__(self, tokenizer, *turns):
        self.tokenizer, self.turns, self.asked = tokenizer, list(turns), []

    async def generate(self, **asked):
        self.asked.append(asked)
        ids = self.tokenizer(self.turns.pop(0), add_special_tokens=False)["input_ids"]
        ids.append(self.tokenizer.eos_token_id)
        return TokenOutput(token_ids=ids, log_probs=[-0.5] * len(ids))


def made(policy, game, *turns, **lengths):
    rollout = {"prompt_length": 4000, "response_length": 4000, **lengths}
    config = {"actor_rollout_ref": {"model": {"path": policy}, "rollout": rollout}}
    tokenizer = verl.policy_of(policy).tokenizer
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    server = Server(tokenizer, *turns)
    loop = verl.CropAgentLoop(
        DictConfigWrap(OmegaConf.create(config)), server, tokenizer, None, object,
        DictConfigWrap(OmegaConf.create({})), hf_model_type=None,
        game=OmegaConf.create(game), agent={"prompt_style": "compact", "max_new_tokens": 300},
    )  # fmt: skip
    return loop, server


def run(loop, **row):
    start = {"task_id": "colour", "frame_budget": 3, "seed": 5, **row}
    return asyncio.run(loop.run({"temperature": 1.0}, raw_prompt=[], extra_info=start))


def test_tokens_mask_and_pictures_are_those_of_the_conversation(policy, game):
    loop, server = made(policy, game, CALLS, ANSWER)
    assert isinstance(loop, AgentLoopBase)
    output = run(loop)
    assert len(output.response_ids) == len(output.response_mask) == len(output.response_logprobs)
    vlm = verl.policy_of(policy)
    said = np.array(output.response_ids)[np.array(output.response_mask, bool)]
    assert vlm.tokenizer.decode(said) == f"{CALLS}<|im_end|>{ANSWER}<|im_end|>"
    images = output.multi_modal_data["images"]
    ids = np.array([*output.prompt_ids, *output.response_ids])
    each = vlm.image_token_count(*SIZE)
    assert len(images) == 3 + 1 and images[0].size == (SIZE[1], SIZE[0])
    assert (ids == vlm.image_pad_id).sum() == each * len(images)
    first, second = server.asked
    assert first["prompt_ids"] == output.prompt_ids and len(first["image_data"]) == 3
    assert second["prompt_ids"] == [*ids[: len(second["prompt_ids"])]]
    assert len(second["image_data"]) == 4
    assert first["sampling_params"]["max_tokens"] == 300 and first["sampling_params"]["logprobs"]
    assert output.num_turns == 4
    masked = np.array(output.response_logprobs)
    assert set(masked[np.array(output.response_mask, bool)]) == {-0.5}


def test_the_reward_is_that_of_the_text_environment(policy, game):
    output = run(made(policy, game, CALLS, ANSWER)[0])
    env = gym.make("paravt_env:ParaVT-LongVideo-Text-v0", **game)
    env.reset(seed=5, options={"task_id": "colour", "frame_budget": 3})
    env.step(CALLS)
    *_, info = env.step(ANSWER)
    env.close()
    assert output.reward_score == info["reward_terms"]["total"]
    told = output.extra_fields["reward_extra_info"]
    assert {name: told[name] for name in info["reward_terms"]} == info["reward_terms"]
    assert told["paravt_stop_reason"] == "answered"


def test_a_video_that_cannot_be_read_trains_nothing(policy, game, tmp_path):
    gone = {**game, "tasks_kwargs": {"root": str(tmp_path)}}
    output = run(made(policy, gone)[0])
    assert output.response_mask == [0] and output.reward_score == 0.0
    told = output.extra_fields["reward_extra_info"]
    assert "cannot be opened" in told["paravt_error"]
    played = run(made(policy, game, CALLS, ANSWER)[0]).extra_fields["reward_extra_info"]
    assert told.keys() == played.keys()  # or verl could not put them into one batch


def test_what_verl_would_cut_is_an_error(policy, game):
    loop, _ = made(policy, game, CALLS, ANSWER, response_length=20)
    with pytest.raises(ValueError, match=r"rollout\.response_length is 20: raise it"):
        run(loop)


def test_a_row_without_a_task_and_a_server_without_probabilities_are_refused(policy, game):
    loop, server = made(policy, game, ANSWER)
    with pytest.raises(ValueError, match="a row needs extra_info with task_id"):
        run(loop, task_id=None)

    async def without(**asked):
        return SimpleNamespace(token_ids=[5, 6], log_probs=None)

    server.generate = without
    with pytest.raises(ValueError, match="no log-probability for every token"):
        run(loop)


def test_subagents_are_refused(policy, game):
    limits = verl.Limits()
    with pytest.raises(ValueError, match="one conversation with pictures"):
        verl.ServedAgent(
            verl.policy_of(policy), verl.AgentConfig(evidence="subagent"), limits, lambda *a: None
        )

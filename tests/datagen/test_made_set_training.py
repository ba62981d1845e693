"""A made set is trained on: its reasoning first, then GRPO on what is sometimes solved.

Both stages run by their recipes, on a random model of a few thousand weights.
"""

import json
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.builders import SIZE, make_task, write_manifest
from support.chat_servers import serving
from support.recipes import SHAPE, differences

from agents.model.mini import build_mini
from agents.model.vlm import VisionLanguageModel
from paravt_env.tasksets.jsonl import JsonlTasks
from train.common.errors import ConfigError
from train.common.metrics_file import read_metrics
from train.config.env import EnvConfig
from train.config.reason import SplitConfig
from train.config.recipe import load
from train.config.run import TrainConfig
from train.config.sft import SFTConfig, StageConfig
from train.datagen.engine import Engine
from train.datagen.manifest import MANIFEST, write_set
from train.loop.launch import train
from train.rollout import play as rollout
from train.sft.conversations import PublishedConversations
from train.sft.messages import source_of
from train.sft.sft import run
from train.workers import rollout_workers


@pytest.fixture
def made(models, settings):
    """A manifest whose rows are all in `train`."""
    with serving(models) as endpoint:
        config = settings(endpoint.url, splits=SplitConfig(train=1.0, val=0.0, test=0.0))
        engine = Engine(config, progress=False)
        write_set(engine.run(), engine.planned, config)
    return Path(config.output) / MANIFEST


def overrides(made, world, folder):
    return {
        "env.tasks": str(made), "env.tasks_kwargs": {"root": str(world.folder)},
        "env.frame_size": list(SIZE), "env.frame_budget": 2, "run.folder": str(folder),
    }  # fmt: skip


def test_a_set_is_taught_and_then_trained_by_the_pair_of_recipes(
    made, world, tmp_path, monkeypatch
):
    tasks = JsonlTasks(made, root=world.folder, split="train")
    model = build_mini(tmp_path / "mini", ["At 3 s the red scene shows a ring."] * 3, SHAPE)
    common = overrides(made, world, tmp_path / "runs")
    taught = load(
        SFTConfig,
        "sft_longvila_cot_mini",
        {**common, "agent.checkpoint": str(model), "published.max_tokens": 0, "log_every": 1},
    )
    taught.stages = (StageConfig("reasoning", steps=2, published=2, freeze_vision=False),)
    checkpoint = run(taught, lambda line: None)
    losses = [json.loads(line) for line in (checkpoint / "sft.jsonl").read_text().splitlines()]
    assert [line["step"] for line in losses] == [1, 2] and "left_out" not in losses[-1]

    played = Counter()

    def graded(env, agent, starts, progress=None):
        """Before training the first task is always solved, the second never, the others at times.

        A random policy earns nothing; so rewards are made of its text.
        """
        results = []
        for one in rollout.play(env, agent, starts, progress):
            played[one.task_id] += 1
            text = "".join(turn["completion"] for turn in one.turns)
            value = {tasks.ids[0]: 1.0, tasks.ids[1]: 0.0}.get(
                one.task_id, (sum(map(ord, text)) + played[one.task_id]) % 7 / 7
            )
            results.append(replace(one, reward=value, correct=value, stop_reason="answered"))
        return results

    monkeypatch.setattr(rollout_workers, "play", graded)
    config = load(
        TrainConfig,
        "longvila_cot_mini",
        {
            **common, "agent.checkpoint": str(checkpoint), "agent.max_new_tokens": 6,
            "agent.answer_tokens": 6, "algorithm.groups": 2, "algorithm.group_size": 2,
            "run.steps": 1, "run.eval_every": 0, "run.checkpoint_every": 0,
            "run.wandb": "disabled",
        },
    )  # fmt: skip
    torch.manual_seed(0)
    train(config)
    (step,) = read_metrics(config.run.path)
    assert min(played[task] for task in tasks.ids) == 10, "ten rollouts of every task"
    assert step["selection/tasks_dropped/always_solved"] == 1
    assert step["selection/tasks_dropped/never_solved"] == 1
    assert step["selection/tasks_kept"] == len(tasks) - 2
    assert played[tasks.ids[0]] == played[tasks.ids[1]] == 10, "and these are not trained on"


def test_what_is_taught_is_the_reasoning_and_the_letter(made, world, tmp_path):
    given = overrides(made, world, tmp_path)
    config = load(SFTConfig, "sft_longvila_cot_mini", given)
    vlm = VisionLanguageModel.load(config.agent.checkpoint)  # the shipped one
    with closing(config.env.make(1)) as env:
        tasks = env.simulation.tasks
        shipped = PublishedConversations(vlm, config, env)
        first, *_ = shipped.write([0], np.random.default_rng(0))
    said = vlm.tokenizer.decode(first.branch_ids[first.loss_mask])
    thought, answer = tasks[0].metadata["reasoning"], tasks[0].answer
    assert said == f"<think>\n{thought}\n</think>\n<answer>{answer}</answer><|im_end|>"
    assert tasks[0].question in vlm.tokenizer.decode(first.prompt_ids)


def test_rows_without_reasoning_are_left_out_and_a_set_without_any_is_refused(
    made, world, tmp_path
):
    lines = [json.loads(line) for line in made.read_text().splitlines()]
    del lines[0]["metadata"]["reasoning"]
    lines[1]["metadata"]["reasoning"] = ["no text"]
    made.write_text("".join(json.dumps(line) + "\n" for line in lines))
    vlm = VisionLanguageModel.load(build_mini(tmp_path / "mini", ["a ring"] * 3, SHAPE))
    given = overrides(made, world, tmp_path)
    config = load(SFTConfig, "sft_longvila_cot_mini", {**given, "published.max_tokens": 0})
    with closing(config.env.make(1)) as env:
        shipped = PublishedConversations(vlm, config, env)
        kept = shipped.write([0, 1, 2], np.random.default_rng(0))
    assert len(kept) == 1 and shipped.counts() == {"malformed": 2}


def test_a_manifest_of_plain_tasks_teaches_nothing(clip, tmp_path):
    (tmp_path / "clip.mp4").symlink_to(clip)
    plain = EnvConfig(tasks=write_manifest(tmp_path / "t.jsonl", [make_task(clip)]),
                      tasks_kwargs={"root": str(Path(clip).parent)})  # fmt: skip
    with pytest.raises(ConfigError, match="a manifest whose metadata hold `reasoning`"):
        source_of(plain.load_tasks())


@pytest.mark.parametrize("size", ["mini", "8b"])
def test_the_pair_is_the_published_one_on_another_set(size):
    kind = f"longvila_cot_{size}"
    second, published = load(TrainConfig, kind), load(TrainConfig, f"longvila_{size}")
    assert differences(second, published) == {"env.tasks", "env.tasks_kwargs", "agent.checkpoint"}
    assert second.selection.prior_rollouts == 10
    first, base = load(SFTConfig, f"sft_{kind}"), load(SFTConfig, f"sft_longvila_{size}")
    assert (first.stages, first.published) == (base.stages, base.published)
    assert second.agent.checkpoint == f"runs/{first.run.name}" == f"runs/sft_{kind}"
    assert first.env.tasks == second.env.tasks == "runs/reason/manifest.jsonl"

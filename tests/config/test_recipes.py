"""Every packaged recipe loads and says what its paper says; every mini one trains."""

import os
from contextlib import closing
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from support.builders import SIZE, make_task, write_manifest
from support.recipes import MECHANISMS, SHAPE, differences, kind_of

from agents.base import Decision
from agents.model.mini import build_mini
from paravt_env.budget import make_budget
from paravt_env.protocol import action_from_completion, render_completion
from paravt_env.rewards.presets import PRESETS
from train.common.metrics_file import read_metrics
from train.config.recipe import load, recipe_names
from train.config.run import TrainConfig
from train.distributed.processes import Group, Processes
from train.evaluation.agents import load_agent
from train.lab.plan.constants import Constants
from train.lab.plan.costs import SHAPES, kv_bytes
from train.lab.plan.recipes import of_recipe
from train.loop.checks import check
from train.loop.launch import train
from train.rollout import play as rollout
from train.workers import rollout_workers

METHODS = (
    "paragrpo", "vanilla_grpo", "anchoring_only", "gating_only", "longvt", "longvila", "pyvision",
    "gdpo", "dapo",
)  # fmt: skip
START = rollout.Start("colour", 4, 0)


def settings(recipe, *overrides):
    return load(TrainConfig, recipe, overrides)


@pytest.mark.parametrize("size", ["mini", "8b"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_recipe_in_both_sizes(method, size):
    config = settings(f"{method}_{size}")
    assert config.run.name == f"{method}_{size}"
    reward = config.env.reward
    assert (reward if isinstance(reward, str) else reward["preset"]) in PRESETS
    mini = size == "mini"
    assert config.agent.checkpoint == ("paravt_mini" if mini else "Qwen/Qwen3-VL-8B-Instruct")
    assert config.agent.device == ("cpu" if mini else "cuda")


def test_the_published_division_of_eight_gpus_is_the_same_method():
    split = settings("paragrpo_8b_split")
    assert differences(split, settings("paragrpo_8b")) == {"agent.engine"}
    check(split, Processes(Group(0, 8)), None)
    assert split.parallel.layout == "disaggregated" and split.parallel.generator_ranks == 1
    assert split.run.asynchronous and split.run.staleness == 2
    assert split.algorithm.loss == "decoupled", "what is played ahead needs a correction"


def test_every_packaged_recipe_is_a_method_or_known():
    methods = {f"{method}_{size}" for method in METHODS for size in ("mini", "8b")}
    assert methods <= set(recipe_names())
    for name in set(recipe_names()) - methods:
        load(kind_of(name), name)


@pytest.mark.parametrize("method", MECHANISMS)
def test_the_ablations_differ_from_paragrpo_by_their_mechanism_alone(method):
    """The published 8B credit is the trajectory's already."""
    mini = differences(settings(f"{method}_mini"), settings("paragrpo_mini"))
    assert mini == MECHANISMS[method]
    large = differences(settings(f"{method}_8b"), settings("paragrpo_8b"))
    assert large == MECHANISMS[method] - {"algorithm.credit"}


@pytest.mark.parametrize("size", ["mini", "8b"])
@pytest.mark.parametrize("method", ["vanilla_grpo", "anchoring_only"])
def test_without_gating_there_is_the_largest_budget_alone(method, size):
    gated = settings(f"paragrpo_{size}").env.frame_budget
    assert settings(f"{method}_{size}").env.frame_budget == max(gated["values"])


def test_longvt_holds_the_published_numbers():
    config = settings("longvt_8b")
    env, algorithm = config.env, config.algorithm
    assert (env.max_turns, env.max_crops, env.crop_fps, env.frames_per_crop) == (5, 1, 1.0, 128)
    assert env.frame_size[0] * env.frame_size[1] <= 224**2
    assert (env.reward, config.agent.evidence) == ("longvt", "frames")
    assert (algorithm.group_size, config.optimizer.learning_rate) == (16, 1e-6)
    assert (algorithm.kl_coefficient, algorithm.kl_in) == (1e-3, "loss")
    assert config.agent.prompt_style == "longvt"


def test_longvila_holds_the_published_numbers():
    config = settings("longvila_8b")
    algorithm = config.algorithm
    assert (config.env.max_turns, config.env.frame_budget) == (0, 512)
    assert (algorithm.group_size, algorithm.advantage, algorithm.loss) == (8, "grpo", "clipped")
    assert (algorithm.kl_coefficient, algorithm.batch_normalise) == (0.01, False)
    assert config.selection.prior_rollouts == 10
    assert config.agent.prompt_style == "reasoning"


def test_pyvision_holds_the_published_numbers():
    config = settings("pyvision_8b")
    env, algorithm, selection = config.env, config.algorithm, config.selection
    assert (env.frame_budget, env.force_answer, env.max_turns) == (0, False, 5)
    assert (algorithm.groups, algorithm.group_size, config.optimizer.learning_rate) == (16, 8, 1e-6)
    assert (algorithm.advantage, algorithm.batch_normalise) == ("centered", False)
    assert algorithm.kl_coefficient == 0.0
    assert selection.oversample * algorithm.groups == 32
    assert selection.drop_zero_variance and selection.rank_by_std
    assert config.agent.prompt_style == "pyvision", "the others promise an overview"


@pytest.mark.parametrize("size", ["mini", "8b"])
def test_pyvision_leaves_out_what_its_paper_does(size):
    config = settings(f"pyvision_{size}")
    assert set(config.selection.stop_reasons) == {"answered", "turn_limit"}
    longest, shape = of_recipe(config), SHAPES["8b"]
    seen = 10 * longest.crop_frames if size == "mini" else longest.branch(shape) - sampled(config)
    assert sampled(config) < config.selection.max_tokens < sampled(config) + seen, "it can fire"


def sampled(config):
    """Tokens of the turns that may call, each as long as possible."""
    return config.env.max_turns * config.agent.max_new_tokens


@pytest.mark.parametrize("size", ["mini", "8b"])
def test_the_papers_that_normalise_over_the_batch_do(size):
    normalise = {m for m in METHODS if settings(f"{m}_{size}").algorithm.batch_normalise}
    assert normalise == {"paragrpo", "vanilla_grpo", "anchoring_only", "gating_only", "gdpo"}


@pytest.mark.parametrize("size", ["mini", "8b"])
def test_dapo_takes_several_steps_a_batch_so_that_its_clip_acts(size):
    algorithm = settings(f"dapo_{size}").algorithm
    assert algorithm.updates_per_batch > 1
    assert algorithm.groups % algorithm.minibatches == 0


def test_gdpo_and_dapo_hold_the_published_numbers():
    gdpo, dapo = settings("gdpo_8b").algorithm, settings("dapo_8b")
    assert (gdpo.advantage, gdpo.batch_normalise) == ("decomposed", True)
    algorithm, selection = dapo.algorithm, dapo.selection
    assert (algorithm.clip_low, algorithm.clip_high) == (0.2, 0.28)
    assert (algorithm.aggregation, algorithm.kl_coefficient) == ("token_mean", 0.0)
    assert (algorithm.group_size, dapo.optimizer.learning_rate) == (16, 1e-6)
    assert (selection.oversample, selection.rounds) == (3.0, 10)
    assert selection.drop_zero_variance
    assert selection.over_long_limit == 5 * selection.over_long_buffer


LONG, TIMES = 1 / 8, 8
"""Share of `max_sequences` that may be as long as possible at once; further tokens of a frame's
time, where a video lasts hours."""


@pytest.mark.parametrize("name", [*(f"{method}_8b" for method in METHODS), "paravt7"])
def test_vllm_holds_the_longest_rollouts_of_an_8b_recipe(name):
    config = settings(name, "--agent.engine=vllm")
    vllm, shape, longest = config.agent.vllm, SHAPES["8b"], of_recipe(config)
    frames = longest.frames + longest.crop_frames
    assert max(config.evaluation.frame_budgets) <= make_budget(config.env.frame_budget).maximum
    tokens = longest.prompt(shape) + longest.branch(shape) + TIMES * frames
    assert tokens <= vllm.max_model_len
    assert frames <= vllm.max_images
    cache, one = vllm.kv_cache_gib * 2**30, kv_bytes(shape, vllm.max_model_len)
    assert cache >= LONG * vllm.max_sequences * one >= one
    # what must be free as vLLM starts is what it will take, and is beside the policy
    takes, card = 2 * shape.parameters + cache, Constants().card
    assert takes < vllm.gpu_memory_utilization * card < card - 2 * shape.parameters


def test_keys_and_values_are_those_of_the_published_shape():
    assert kv_bytes(SHAPES["8b"], 8192) == 1.125 * 2**30


@pytest.fixture(scope="module")
def tiny(clip, other_clip, tmp_path_factory):
    """Overrides that shrink any recipe to 2 groups of 2 and K of at most 4 on two tiny videos.

    Where K is drawn it still is, of two values.
    """
    folder = tmp_path_factory.mktemp("recipes")
    for path in (clip, other_clip):
        os.link(path, folder / os.path.basename(path))
    tasks = [make_task(clip), make_task(other_clip, "shape", question="Which shape is it?")]
    manifest = write_manifest(folder / "tasks.jsonl", tasks)
    model = build_mini(folder / "mini", ["crop the video"] * 3, SHAPE)

    def shrink(name):
        config = settings(name)
        drawn = isinstance(config.env.frame_budget, dict)
        fixed = min(4, 0 if drawn else config.env.frame_budget)
        budget = {"kind": "choice", "values": [2, 4]} if drawn else fixed
        frames = replace(
            config.env, tasks=manifest, tasks_kwargs=None, frame_size=SIZE, frame_budget=budget,
            frames_per_crop=2, max_crops=min(config.env.max_crops, 2), max_turns=min(
                config.env.max_turns, 2
            ),
        )  # fmt: skip
        return replace(
            config,
            env=frames,
            agent=replace(
                config.agent, checkpoint=str(model), max_new_tokens=6, answer_tokens=6,
                subagent_tokens=4,
            ),
            algorithm=replace(
                config.algorithm, groups=2, group_size=2,
                minibatches=min(config.algorithm.minibatches, 2),
            ),
            optimizer=replace(config.optimizer, learning_rate=1e-3),
            selection=replace(
                config.selection,
                prior_rollouts=min(config.selection.prior_rollouts, 2),
            ),
            run=replace(
                config.run, folder=str(folder / "runs"), steps=2, wandb="disabled", eval_every=0,
                checkpoint_every=0,
            ),
        )  # fmt: skip

    return shrink


@pytest.fixture
def varied(monkeypatch):
    """A random policy earns next to nothing: its answers are graded by their text instead."""

    def play(env, agent, starts, progress=None):
        weights = env.simulation.preset.weights
        rollouts = []
        for one in rollout.play(env, agent, starts, progress):
            text = "".join(turn["completion"] for turn in one.turns)
            grade = (sum(map(ord, text)) % 97 + 1) / 100
            terms = {**one.terms, "answer": grade}
            reward = sum(weight * terms[name] for name, weight in weights.items())
            rollouts.append(
                replace(one, reward=reward, terms=terms, correct=grade, stop_reason="answered")
            )
        return rollouts

    monkeypatch.setattr(rollout_workers, "play", play)


@pytest.mark.parametrize("method", METHODS)
def test_a_mini_recipe_takes_two_steps(method, tiny, varied):
    config = tiny(f"{method}_mini")
    torch.manual_seed(0)
    train(config)
    steps = read_metrics(config.run.path)
    assert len(steps) == 2
    for step in steps:
        kept, updates = step["selection/groups_kept"], config.algorithm.updates_per_batch
        assert step["optimizer_steps"] == min(updates, kept) and step["grad_norm"] > 0
        assert step["groups/no_advantage"] < 1
        assert step["selection/groups_kept"] + step["selection/groups_missing"] == 2
        assert step["selection/groups_played"] >= 2 * config.selection.oversample
        assert ("kl" in step) == (config.algorithm.kl_coefficient > 0)
        assert ("reward/over_long" in step) == (method == "dapo")
        assert ("reward/format_anchor" in step) == (method != "pyvision")
        assert ("reward/tool_gain" in step) == (method != "longvila")
        assert ("selection/tasks_kept" in step) == (method == "longvila")
        assert (step["tokens/format_credit"] == 1.0) == (config.algorithm.credit == "trajectory")
    budgets = {name for step in steps for name in step if name.startswith("accuracy/K=")}
    gated = method in ("paragrpo", "gating_only")
    assert len(budgets) == (2 if gated else 1)
    assert config.algorithm.updates_per_batch == (2 if method == "dapo" else 1)


def test_a_batch_of_which_nothing_is_kept_takes_no_step_and_the_run_goes_on(tiny, monkeypatch):
    """All rewards are equal: DAPO plays its rounds and leaves the weights alone."""

    def play(*played):
        return [replace(one, reward=0.5) for one in rollout.play(*played)]

    monkeypatch.setattr(rollout_workers, "play", play)
    config = tiny("dapo_mini")
    config = replace(config, run=replace(config.run, name="flat", checkpoint_every=1))
    trained = train(config)
    steps = read_metrics(config.run.path)
    assert [step["optimizer_steps"] for step in steps] == [0, 0]
    for step in steps:
        counts = {name: step[f"selection/{name}"] for name in ("rounds", "groups_played",
                  "groups_kept", "groups_missing", "groups_dropped/zero_variance")}  # fmt: skip
        assert [*counts.values()] == [3, 6, 0, 2, 6]
        assert (step["groups/collected"], step["rollouts"]) == (0, 12)
    before, after = (
        load_file(os.path.join(folder, "model.safetensors"))
        for folder in (config.agent.checkpoint, trained)
    )
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize("size", ["mini", "8b"])
def test_longvila_is_shown_no_tool(size, tiny):
    config = tiny(f"longvila_{size}")
    with closing(config.env.make(1)) as env:
        plays = replace(config.agent, device="cpu", dtype="float32")
        agent = load_agent(plays, env.simulation.settings)
        (one,) = rollout.play(env, agent, [START])
    said = agent.vlm.tokenizer.decode(one.trajectories[0].prompt_ids.tolist())
    assert "Which colour?" in said
    assert not any(word in said for word in ("tool", "call", "crop"))
    assert ("<think>" in said) == ("<answer>...</answer>" in said) == (size == "8b")


class Says:
    """Writes one text in every turn."""

    def __init__(self, text):
        self.text = text

    def begin(self, rows):
        pass

    def act(self, observations, rows):
        return [Decision(action_from_completion(self.text, 2)) for _ in rows]


THOUGHT, CALL = "<think>The frames show it.</think>", render_completion("", [(1.0, 3.0)], "")


@pytest.mark.parametrize("size", ["mini", "8b"])
@pytest.mark.parametrize(
    ("text", "reward", "stop_reason"),
    [
        (f"{THOUGHT}<answer>B</answer>", 1.0, "answered"),
        (f"{THOUGHT}<answer>A</answer>", 0.1, "answered"),
        ("<answer>B</answer>", 0.9, "answered"),
        (f"{THOUGHT}{CALL}", 0.0, "unanswered"),
        (f"{THOUGHT}{CALL}<answer>B</answer>", 0.9, "answered"),
    ],
)
def test_longvila_pays_the_answer_and_the_form_and_no_call(size, tiny, text, reward, stop_reason):
    with closing(tiny(f"longvila_{size}").env.make(1)) as env:
        (one,) = rollout.play(env, Says(text), [START])
    assert one.reward == pytest.approx(reward)
    assert (one.stop_reason, one.executed, len(one.turns)) == (stop_reason, 0, 1)


def test_the_over_long_penalty_is_a_weighted_term_like_any_other(tiny, varied):
    """The decomposed estimator refuses rewards that hold more than their weighted terms."""
    config = tiny("dapo_mini")
    config = replace(
        config,
        algorithm=replace(config.algorithm, advantage="decomposed"),
        selection=replace(config.selection, over_long_limit=4, over_long_buffer=2),
        run=replace(config.run, name="decomposed", steps=1),
    )
    train(config)
    (step,) = read_metrics(config.run.path)
    assert step["reward/over_long"] < 0

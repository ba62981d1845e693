"""Recipes, overrides and their errors."""

import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import yaml
from support.recipes import kind_of

from train.common.errors import ConfigError
from train.config.env import EnvConfig
from train.config.evaluation import EvalConfig
from train.config.recipe import as_yaml, load, recipe_names, save
from train.config.run import RunConfig, TrainConfig
from train.config.sft import SFTConfig, StageConfig


@dataclass
class Optimizer:
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    kind: Literal["adam", "sgd"] = "adam"

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError("learning_rate must be positive")


@dataclass
class Toy:
    optimizer: Optimizer = field(default_factory=Optimizer)
    steps: int = 10
    name: str = "toy"
    budget: int | dict[str, Any] | None = None


def written(folder, text, name="toy.yaml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_overrides_beat_the_recipe_and_the_recipe_beats_the_defaults(tmp_path):
    path = written(tmp_path, "steps: 20\noptimizer: {learning_rate: 0.5, kind: sgd}\n")
    config = load(Toy, path, ["--optimizer.learning-rate", "1e-4", "name=5"])
    assert config == Toy(Optimizer(1e-4, (0.9, 0.99), "sgd"), 20, "5", None)


def test_values_take_the_types_of_their_fields():
    overrides = [
        "--optimizer.betas=[0.5, 0.6]",
        "--budget={kind: fixed, frames: 4}",
        "--steps",
        "7",
    ]
    config = load(Toy, None, overrides)
    assert config.optimizer.betas == (0.5, 0.6)
    assert config.budget == {"kind": "fixed", "frames": 4}
    assert config.steps == 7
    assert load(Toy, None, ["budget=4"]).budget == 4


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("--optimizer.learning_rte=1", "optimizer.learning_rate"),
        ("--learning_rate=1", "optimizer.learning_rate"),
        ("--step=1", "steps"),
        ("--optimiser.kind=sgd", "optimizer"),
    ],
)
def test_an_unknown_key_names_the_nearest_one(override, nearest):
    with pytest.raises(ConfigError, match=f"unknown key .*did you mean '{nearest}'"):
        load(Toy, None, [override])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--steps=many"], "steps.*int.*many"),
        (["--optimizer.kind=rmsprop"], "optimizer.kind.*adam.*rmsprop"),
        (["--optimizer.learning_rate=-1"], "learning_rate must be positive"),
        (["--optimizer=3"], "optimizer is a group of settings"),
        (["--steps"], "--steps has no value"),
        (["steps", "3"], "'steps' is not an override"),
    ],
)
def test_a_wrong_type_or_range_says_which_key_and_what_it_takes(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load(Toy, None, overrides)


def test_a_base_is_changed_group_by_group_but_a_mapping_value_is_replaced(tmp_path):
    written(tmp_path, "steps: 3\noptimizer: {kind: sgd}\nbudget: {kind: choice, values: [4]}\n")
    path = written(
        tmp_path,
        "base: toy.yaml\noptimizer: {learning_rate: 2}\nbudget: {kind: fixed, frames: 8}\n",
        "other.yaml",
    )
    assert load(Toy, path) == Toy(
        Optimizer(2.0, (0.9, 0.99), "sgd"), 3, "toy", {"kind": "fixed", "frames": 8}
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: toy.yaml", "its own base"),
        ("- 1", "holds list"),
        ("a: [", "not YAML"),
        ("stepz: 1", "did you mean 'steps'"),
    ],
)
def test_bad_recipe_files(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load(Toy, written(tmp_path, text))


def test_a_missing_recipe_names_the_nearest_one(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'paragrpo_mini'"):
        load(TrainConfig, "paragrpo_mni")
    with pytest.raises(ConfigError, match=r"no recipe at .*gone\.yaml"):
        load(TrainConfig, tmp_path / "gone.yaml")


@pytest.mark.parametrize("name", recipe_names())
def test_what_is_saved_loads_as_the_same_settings(name, tmp_path):
    kind = kind_of(name)
    config = load(kind, name)
    assert load(kind, save(config, tmp_path)) == config
    assert as_yaml(load(kind, save(config, tmp_path))) == as_yaml(config)


def test_the_published_recipe_holds_the_published_numbers():
    config = load(TrainConfig, "paragrpo_8b")
    algorithm = config.algorithm
    assert (algorithm.groups, algorithm.group_size, config.optimizer.learning_rate) == (7, 8, 2e-6)
    assert (config.optimizer.adam_betas, config.optimizer.weight_decay) == ((0.9, 0.999), 0.01)
    assert (algorithm.clip_low, algorithm.clip_high, algorithm.behaviour_cap) == (0.2, 0.2, 5.0)
    assert (algorithm.kl_coefficient, config.optimizer.max_grad_norm) == (0.01, 1.0)
    assert (config.agent.temperature, config.agent.max_new_tokens) == (0.7, 2048)
    assert (algorithm.advantage, algorithm.batch_normalise) == ("grpo", True)
    assert (algorithm.loss, algorithm.credit) == ("decoupled", "trajectory")
    assert (config.env.max_turns, config.env.max_crops, config.env.crop_fps) == (3, 5, 1.0)
    assert (config.env.frames_per_crop, config.agent.subagent_tokens) == (16, 512)
    assert config.env.frame_budget == {"kind": "choice", "values": [4, 8, 16, 32, 64]}
    assert config.env.frame_size[0] * config.env.frame_size[1] <= 50176


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EnvConfig(max_crops=0), "max_crops"),
        (lambda: EnvConfig(frame_budget={"kind": "fixd", "frames": 4}), "did you mean 'fixed'"),
        (lambda: EvalConfig(tasks=0), "tasks = 0"),
        (lambda: EvalConfig(policy="orcle"), "did you mean 'oracle'"),
        (lambda: EvalConfig(frame_budgets=(4, -1)), "frame_budgets"),
        (lambda: EvalConfig(confidence=1.0), "confidence"),
        (lambda: EvalConfig(temperature=float("nan")), "temperature"),
        (lambda: RunConfig(name="../up"), "plain folder name"),
        (lambda: RunConfig(threads=0), "threads"),
        (lambda: StageConfig(frames=-1), "frames"),
        (lambda: SFTConfig(stages=()), "stages"),
        (lambda: SFTConfig(learning_rate=0.0), "learning_rate"),
    ],
)
def test_values_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_run_folder():
    assert str(RunConfig(name="a", folder="b").path) == "b/a"


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("--agent.temperature=.nan", "agent.temperature"),
        ("--evaluation.temperature=.inf", "temperature"),
        ("--lora.alpha=.inf", "lora.alpha"),
        ("--env.reward={preset: paravt, weights: {answer: .nan}}", "env.reward.weights.answer"),
        ("--optimizer.max_grad_norm=.nan", "optimizer.max_grad_norm"),
        ("--optimizer.adam_betas=[0.9, .nan]", "optimizer.adam_betas"),
    ],
)
def test_no_setting_of_a_recipe_is_a_number_that_is_not_finite(override, name):
    with pytest.raises(ConfigError, match=re.escape(name)):
        load(TrainConfig, "paragrpo_mini", [override])


def leaves(settings, prefix=""):
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@pytest.mark.parametrize("kind", [TrainConfig, SFTConfig])
def test_every_dotted_name_is_read_by_its_type(kind):
    """What --print-config prints of a setting, given as a word, is that setting again."""
    whole = yaml.safe_load(as_yaml(kind()))
    names = dict(leaves(whole))
    assert len(names) > 60
    words = [f"--{name}={json.dumps(value)}" for name, value in names.items()
             if not isinstance(value, str)]  # fmt: skip
    words += [f"--{name}={value}" for name, value in names.items() if isinstance(value, str)]
    assert load(kind, None, words) == kind()


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("0", 0), ("-0.5", -0.5), ("1e-3", 0.001), ("true", True), ("null", None), ("yes", "yes"),
        ("[1, 2]", [1, 2]), ("{a: 1}", {"a": 1}), ("[a", "[a"), ('"0"', "0"), ("", ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["--{}={}", "{}={}", "--{} {}"])
def test_a_name_inside_a_mapping_gets_the_type_it_is_written_in(word, value, form):
    key = "env.reward.terms.own.options.x"
    words = form.format(key, word).split(" ", 1) if " {}" in form else [form.format(key, word)]
    found = load(TrainConfig, "paragrpo_mini", words).env.reward
    assert found == {"preset": "paravt", "terms": {"own": {"options": {"x": value}}}}
    assert type(found["terms"]["own"]["options"]["x"]) is type(value)


def test_a_weight_of_a_reward_keeps_the_reward_that_the_recipe_names():
    found = load(TrainConfig, "vanilla_grpo_mini", ["--env.reward.weights.tool_gain=0"]).env.reward
    assert found == {"preset": "vanilla", "weights": {"tool_gain": 0}}

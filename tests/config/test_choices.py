"""Arguments of one choice never survive the switch to another."""

import pytest
from support.recipes import kind_of

from train.config.recipe import load, recipe_names
from train.config.run import TrainConfig


def changed(capsys, *overrides, recipe="paragrpo_mini"):
    """The settings, and the lines that were said."""
    config = load(TrainConfig, recipe, overrides)
    return config, capsys.readouterr().err.splitlines()


def test_another_task_set_starts_without_the_arguments_of_the_recipes_one(capsys):
    config, said = changed(capsys, "--env.tasks=mine.jsonl")
    assert (config.env.tasks, config.env.tasks_kwargs) == ("mine.jsonl", None)
    assert said == [
        "paravt: env.tasks_kwargs={'videos': 48} is left out: it belongs to env.tasks=synthetic"
    ]


@pytest.mark.parametrize("order", [1, -1])
def test_arguments_that_are_given_with_the_new_choice_are_its_own(capsys, order):
    overrides = ["--env.tasks=video_mme", "--env.tasks_kwargs.root=DATA"][::order]
    config, said = changed(capsys, *overrides)
    assert config.env.tasks_kwargs == {"root": "DATA"} and len(said) == 1


def test_the_same_choice_keeps_its_arguments(capsys):
    config, said = changed(capsys, "--env.tasks=synthetic", "--env.tasks_kwargs.root=DATA")
    assert config.env.tasks_kwargs == {"videos": 48, "root": "DATA"} and said == []


def test_a_recipe_that_starts_from_another_one_switches_too(capsys, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: paragrpo_mini\nenv: {tasks: mine.jsonl}\n")
    config, said = changed(capsys, recipe=path)
    assert config.env.tasks_kwargs is None and len(said) == 1
    path.write_text("base: paragrpo_mini\nenv: {tasks: atari, tasks_kwargs: {videos: 2}}\n")
    config, said = changed(capsys, "--run.steps=1", recipe=path)
    assert config.env.tasks_kwargs == {"videos": 2} and said == []


def test_another_preset_starts_without_the_options_of_the_recipes_one(capsys, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("env: {reward: {preset: longvt, open_metric: exact, weights: {answer: 2}}}\n")
    config, said = changed(capsys, "--env.reward.preset=pyvision", recipe=path)
    assert config.env.reward == {"preset": "pyvision"}
    assert said == [
        "paravt: env.reward={'open_metric': 'exact', 'weights': {'answer': 2}} is left out: it "
        "belongs to env.reward.preset=longvt"
    ]
    config, said = changed(capsys, "--env.reward=pyvision", recipe=path)
    assert config.env.reward == "pyvision" and said == []
    config, said = changed(capsys, "--env.reward.open_metric=f1", recipe=path)
    assert config.env.reward["preset"] == "longvt" and said == []
    assert config.env.reward["weights"] == {"answer": 2}


def test_an_option_alone_leaves_the_preset_that_the_recipe_names(capsys):
    config, said = changed(capsys, "--env.reward.open_metric=exact", recipe="pyvision_mini")
    assert config.env.reward == {"preset": "pyvision", "open_metric": "exact"} and said == []


def test_another_kind_of_frame_budget_starts_without_the_numbers_of_the_recipes_one(capsys):
    numbers = {"kind": "uniform", "low": 1, "high": 4}
    overrides = {f"env.frame_budget.{name}": value for name, value in numbers.items()}
    config = load(TrainConfig, "paragrpo_mini", overrides)
    assert config.env.frame_budget == numbers
    assert "{'values': [4, 8, 16]} is left out" in capsys.readouterr().err
    config, said = changed(capsys, "--env.frame_budget=4")
    assert config.env.frame_budget == 4 and said == []


def test_another_engine_starts_without_what_only_the_recipes_one_has(capsys, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "agent: {engine: vllm_server, vllm: {tensor_parallel: 2, url: 'http://x', max_images: 9}}\n"
    )
    config, said = changed(capsys, "--agent.engine=vllm", recipe=path)
    vllm = config.agent.vllm
    assert (vllm.tensor_parallel, vllm.url, vllm.max_images) == (1, "", 9)
    assert said == [
        "paravt: agent.vllm={'tensor_parallel': 2, 'url': 'http://x'} is left out: it belongs to "
        "agent.engine=vllm_server"
    ]


@pytest.mark.parametrize("name", recipe_names())
def test_no_packaged_recipe_loses_anything(name, capsys):
    load(kind_of(name), name)
    assert capsys.readouterr().err == ""


def test_a_suite_starts_without_the_arguments_of_the_recipes_task_set(capsys):
    config, said = changed(capsys, "--evaluation.suite=paravt7")
    assert config.env.tasks_kwargs is None and len(said) == 1
    config, said = changed(capsys, "--evaluation.suite=paravt7", "--env.tasks_kwargs.strict=false")
    assert set(config.env.tasks_kwargs) == {"strict"}
    config, said = changed(capsys, "--evaluation.split=val")
    assert config.env.tasks_kwargs == {"videos": 48} and said == []

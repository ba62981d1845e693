"""A run on several sets with weights that validates on others: one recipe, metrics by set."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.builders import make_task, write_manifest
from support.tiny_runs import SHAPE, tiny_settings, varied, with_run

from train.common.errors import ConfigError
from train.common.metrics_file import read_metrics
from train.config.recipe import load
from train.config.run import TrainConfig
from train.loop.launch import train
from train.workers import lanes, rollout_workers


@pytest.fixture
def settings(clip, other_clip, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    for module in (rollout_workers, lanes):
        monkeypatch.setattr(module, "play", varied)
    config = tiny_settings(tmp_path, (clip, other_clip), SHAPE)
    config.algorithm.groups, config.algorithm.group_size = 3, 2
    files = {
        name: write_manifest(tmp_path / f"{name}.jsonl", [make_task(clip, one) for one in ids])
        for name, ids in {"films": "ab", "games": "cde", "held": "fg"}.items()
    }
    for name in ("games", "held"):  # the same clip asked something else: no task of another set
        file = Path(files[name])
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        asked = [row | {"question": f"{name} {row['id']}?"} for row in rows]
        file.write_text("".join(json.dumps(row) + "\n" for row in asked))
    sets = {"films": {"tasks": files["films"], "weight": 2}, "games": {"tasks": files["games"]}}
    config.env = replace(config.env, tasks="mix", tasks_kwargs={"sets": sets})
    return with_run(config, "mixed", steps=2, eval_every=1, eval_set=files["held"], eval_tasks=2)


def counts(folder):
    return [
        [step.get(f"rollouts/set={name}", 0.0) for name in ("films", "games")]
        for step in read_metrics(folder)
    ]


def test_a_mixture_trains_and_another_set_validates(settings):
    train(settings)
    steps = read_metrics(settings.run.path)
    assert [sum(pair) for pair in counts(settings.run.path)] == [6.0, 6.0]
    assert all("validation/accuracy" in step for step in steps)
    assert {"accuracy/set=films", "calls/set=films", "compliance/set=films"} <= {*steps[0]} | {
        *steps[1]
    }
    again = with_run(settings, "again", steps=1)
    train(again)
    longer = with_run(settings, "again", steps=2, resume=True)
    train(longer)
    assert counts(longer.run.path) == counts(settings.run.path)


def test_validation_on_a_mixture_is_told_by_set(settings):
    held = {"one": {"tasks": settings.run.eval_set}}
    own = {"eval_set": "mix", "eval_set_kwargs": {"sets": held}}
    train(with_run(settings, "by set", **own | {"steps": 1}))
    (step,) = read_metrics(settings.run.path.parent / "by set")
    assert step["validation/accuracy/set=one"] == step["validation/accuracy"]


def test_a_validation_set_that_is_trained_on_is_refused(settings):
    films = settings.env.tasks_kwargs["sets"]["films"]["tasks"]
    with pytest.raises(ConfigError, match=r"2 of its 2 tasks are trained on .*run\.eval_set"):
        train(with_run(settings, "same", eval_set=films))


def test_a_recipe_holds_the_sets_and_the_command_line_replaces_them(tmp_path):
    recipe = tmp_path / "mixed.yaml"
    recipe.write_text(
        "base: paragrpo_mini\n"
        "env:\n"
        "  tasks: mix\n"
        "  tasks_kwargs:\n"
        "    sets:\n"
        "      films: {tasks: films.jsonl, weight: 3}\n"
        "      games: {tasks: atari, videos: 12}\n"
        "run: {eval_set: synthetic, eval_set_kwargs: {videos: 4}}\n"
    )
    config = load(TrainConfig, recipe)
    assert config.env.tasks_kwargs == {
        "sets": {
            "films": {"tasks": "films.jsonl", "weight": 3},
            "games": {"tasks": "atari", "videos": 12},
        }
    }
    other = load(TrainConfig, recipe, {"run.eval_set": "held.jsonl", "env.tasks": "a.jsonl"})
    assert (other.env.tasks_kwargs, other.run.eval_set_kwargs) == (None, None)
    with pytest.raises(ConfigError, match=r"eval_set_kwargs belong to run\.eval_set"):
        load(TrainConfig, "paragrpo_mini", {"run.eval_set_kwargs": {"videos": 3}})

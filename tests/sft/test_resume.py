"""A cold start that stops goes on: the same weights, bit for bit, and which folders are refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import load_file

from agents.config import AgentConfig
from agents.model.mini import MiniConfig, build_mini
from agents.model.vlm import VisionLanguageModel
from train.common.errors import ConfigError
from train.config.env import EnvConfig
from train.config.learner import LoraConfig
from train.config.sft import SFTConfig, StageConfig
from train.learner import checkpoint
from train.sft.sft import run
from train.sft.streams import Shuffled

TINY = MiniConfig(32, 1, 2, 32, 32, 1, 2, 32, vocabulary=280)
STAGES = (
    StageConfig("frames", steps=3, frames=3, freeze_vision=False),
    StageConfig("all", steps=6, rollouts=8, conversations=2, readings=1, frames=1),
    StageConfig("last", steps=2, rollouts=8, words=0.5, conversations=2),
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("world"))
    kwargs = {"videos": 1, "root": root}
    return SFTConfig(
        env=EnvConfig(tasks_kwargs=kwargs, split="val", frame_size=(64, 64), frame_budget=5),
        agent=AgentConfig(prompt_style="compact"),
        mini=TINY,
        frames_per_video=6,
        log_every=4,
        save_every=2,
        stages=STAGES,
    )


class Stopped(Exception):
    pass


def stopped_at(stage, step):
    """Says nothing, and stops a run where it tells of a step."""

    def say(line):
        if line.startswith("{") and (json.loads(line)["stage"], json.loads(line)["step"]) == (
            stage,
            step,
        ):
            raise Stopped

    return say


def ended(folder):
    """Weights and records of a finished cold start; nothing is left of its checkpoints."""
    assert not (folder / checkpoint.FOLDER).exists()
    records = [json.loads(line) for line in (folder / "sft.jsonl").read_text().splitlines()]
    told = [(r["stage"], r["step"], r["loss"]) for r in records]
    return load_file(folder / "model.safetensors"), told


def same(one, other):
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    for name, tensor in one[0].items():
        assert tensor.equal(other[0][name]), name


def put(config, folder, **changes):
    """The settings with another output."""
    return replace(config, output=str(folder), **changes)


def resume(config):
    return replace(config, run=replace(config.run, resume=True))


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ({}, [("all", 4)]),
        ({}, [("frames", 3), ("all", 6)]),
        ({"agent.dtype": "bfloat16"}, [("all", 4)]),
        ({"lora": LoraConfig(rank=2)}, [("all", 4)]),
    ],
    ids=["inside a stage", "twice, between stages", "fp32 masters", "adapters"],
)
def test_a_run_that_stopped_ends_with_the_weights_of_one_that_did_not(
    settings, tmp_path, kind, where
):
    kind = dict(kind)
    agent = replace(settings.agent, dtype=kind.pop("agent.dtype", "float32"))
    config = replace(settings, agent=agent, **kind)
    whole = run(put(config, tmp_path / "whole"), lambda line: None)
    parts = put(config, tmp_path / "parts")
    for number, (stage, step) in enumerate(where):
        with pytest.raises(Stopped):
            run(resume(parts) if number else parts, stopped_at(stage, step))
    said = []
    same(ended(whole), ended(run(resume(parts), said.append)))
    assert sum("resuming in stage" in line for line in said) == 1


def test_what_is_kept_is_of_the_last_save_and_not_of_the_steps_after_it(settings, tmp_path):
    config = put(settings, tmp_path / "out")
    with pytest.raises(Stopped):
        run(config, stopped_at("all", 4))  # told before it is saved
    (folder,) = (tmp_path / "out" / checkpoint.FOLDER).iterdir()
    assert checkpoint.step_of(folder) == 3 + 2
    state = json.loads((folder / checkpoint.STATE).read_text())
    assert (state["stage"], state["step"]) == (1, 2)
    VisionLanguageModel.load(tmp_path / "out")  # the policy so far is there, too


def test_folders_that_hold_something_are_refused(settings, tmp_path):
    config = put(settings, tmp_path / "out", stages=STAGES[:1])
    with pytest.raises(ConfigError, match=r"has no checkpoint: start without --run\.resume"):
        run(resume(config), lambda line: None)
    with pytest.raises(Stopped):
        run(config, stopped_at("frames", 3))
    with pytest.raises(ConfigError, match=r"has not ended: add --run\.resume=true"):
        run(config, lambda line: None)
    other = resume(replace(config, learning_rate=1.0))
    with pytest.raises(ConfigError, match=r"learning_rate: 0\.001 there, 1\.0 here"):
        run(other, lambda line: None)
    seeded = replace(config, run=replace(config.run, resume=True, seed=5))
    with pytest.raises(ConfigError, match=r"run\.seed: 0 there, 5 here"):
        run(seeded, lambda line: None)
    run(replace(resume(config), log_every=1), lambda line: None)
    for again in (config, resume(config)):
        with pytest.raises(ConfigError, match="whose cold start has ended: give another"):
            run(again, lambda line: None)
    foreign = build_mini(tmp_path / "foreign", ["light"] * 4, TINY)
    with pytest.raises(ConfigError, match="holds a policy that no cold start made"):
        run(put(config, foreign), lambda line: None)


def test_a_run_that_was_killed_before_its_first_save_starts_anew(settings, tmp_path):
    config = put(settings, tmp_path / "out", stages=STAGES[:1], save_every=0)

    def stop(line):
        raise Stopped

    with pytest.raises(Stopped):
        run(replace(config, log_every=1), stop)
    run(config, lambda line: None)
    assert ended(tmp_path / "out")[1][-1][:2] == ("frames", 3)


def test_a_broken_checkpoint_is_refused(settings, tmp_path):
    config = put(settings, tmp_path / "out", stages=STAGES[:1])
    with pytest.raises(Stopped):
        run(config, stopped_at("frames", 3))
    (folder,) = (tmp_path / "out" / checkpoint.FOLDER).iterdir()
    (folder / "model" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"is broken: model/model\.safetensors differs"):
        run(resume(config), lambda line: None)


# --- streams ----------------------------------------------------------------------------------


def through_json(place):
    return json.loads(json.dumps(place))


@pytest.mark.parametrize("taken", [0, 1, 4, 5, 7])
def test_items_go_on_in_the_middle_of_an_epoch(taken):
    rng = np.random.default_rng(3)
    stream = Shuffled(list("abcd"), rng)
    for _ in range(taken):
        next(stream)
    place, state = through_json(stream.place()), through_json(rng.bit_generator.state)
    expected = [next(stream) for _ in range(9)]
    again = np.random.default_rng(99)
    again.bit_generator.state = state
    other = Shuffled(list("abcd"), again)
    other.go_to(place)
    assert [next(other) for _ in range(9)] == expected
    assert sorted("".join(expected[(-taken) % 4 :][:4])) == list("abcd")


def test_a_place_among_other_items_is_refused():
    stream = Shuffled(list("abcd"), np.random.default_rng(0))
    next(stream)
    with pytest.raises(ValueError, match="3 items, where 4 were"):
        Shuffled(list("abc"), np.random.default_rng(0)).go_to(stream.place())

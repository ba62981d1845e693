"""The cold start's stages: single frames, overviews in words, and what a stage must hold."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.config import AgentConfig, Limits
from agents.model.mini import MiniConfig, build_mini
from agents.model.vlm import VisionLanguageModel
from paravt_env.protocol.parts import ClipRef
from paravt_env.protocol.styles import COMPACT
from paravt_env.tasksets.made.synthetic.oracle import Cue
from train.config.env import EnvConfig
from train.config.sft import SFTConfig, StageConfig, TraceConfig
from train.sft.demonstrations import frame_reading, single_frames, trace_trajectories
from train.sft.saving import replace_policy
from train.sft.sft import run
from train.sft.traces import TraceAgent
from train.sft.wording import describe_frame, listed, window_of

TINY = MiniConfig(32, 1, 2, 32, 32, 1, 2, 32, vocabulary=280)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("world"))
    return EnvConfig(
        tasks_kwargs={"videos": 1, "root": root}, split="val", frame_size=(64, 64), frame_budget=6
    )


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    folder = build_mini(tmp_path_factory.mktemp("mini"), ["red left; blue right none?"] * 4, TINY)
    return VisionLanguageModel.load(folder)


@pytest.mark.parametrize(
    ("symbols", "text"),
    [
        ((), "red left none"),
        ((("star", "top left"),), "red left star top left"),
        ((("star", "top left"), ("star", "top right")), "red left 2 star"),
    ],
)
def test_a_frame_is_described_by_its_scene_the_sun_and_its_symbols(symbols, text):
    assert describe_frame(Cue(12.0, 0, "red", 0.2, symbols)) == text


def test_the_window_lies_on_the_side_of_the_sun():
    assert window_of(COMPACT, Cue(12.4, 0, "red", 0.2, ())) == (12.0, 52.0)
    assert window_of(COMPACT, Cue(100.0, 0, "red", 0.6, ())) == (60.0, 100.0)
    assert window_of(COMPACT, Cue(12.0, 0, "red", 0.6, ())) == (0.0, 12.0)


def test_a_plan_gives_the_window_of_a_frame_that_is_asked_for():
    cue = Cue(100.0, 0, "red", 0.6, ())
    assert listed(COMPACT, 7, cue, True) == "7 red RIGHT 60 100"
    assert listed(COMPACT, 7, cue, False) == "7 red right 60 100"


def test_a_single_frame_is_a_reading_of_its_own(vlm):
    found = frame_reading(
        vlm, COMPACT, Cue(12.0, 0, "blue", 0.9, ()), np.zeros((1, 64, 64, 3), "uint8")
    )
    assert vlm.tokenizer.decode(found.branch_ids) == "blue right none<|im_end|>"
    assert (found.kind, len(found.prompt_images), found.loss_mask.all()) == ("subagent", 1, True)


def test_a_single_frame_as_video_is_a_pair_of_itself(vlm):
    cue = Cue(12.25, 0, "blue", 0.9, ())
    found = frame_reading(vlm, COMPACT, cue, np.zeros((1, 64, 64, 3), "uint8"), "video")
    assert "<12.2 seconds>" in vlm.tokenizer.decode(found.prompt_ids)
    assert [image.shape for image in found.prompt_images] == [(2, 64, 64, 3)]


def test_a_video_of_which_words_take_the_place_of_some_pairs(vlm, world):
    agent = TraceAgent(
        vlm, AgentConfig(frames_as="video"), Limits(), lambda row: None, TraceConfig(), words=0.5
    )
    chances = iter([False, True, False, False])
    agent._chance = lambda probability: next(chances)
    cues = [Cue(float(t), 0, "blue", 0.9, ()) for t in (1, 2, 3, 4, 5, 6, 7)]
    clip = ClipRef((0, 1, 2, 3, 4, 5, 6), (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0))
    first, said, rest = agent._clip_in_words(clip, cues)
    assert first == ClipRef((0, 1), (1.0, 2.0))
    assert said == "<3.5 seconds> blue right none, blue right none\n"
    assert rest == ClipRef((4, 5, 6), (5.0, 6.0, 7.0))


def test_traces_in_video_show_pairs_and_train_the_same_kind_of_turns(vlm, world):
    config = SFTConfig(env=world)
    config.agent = replace(config.agent, prompt_style="compact", frames_as="video")
    with closing(world.make(4)) as env:
        kind = StageConfig(rollouts=4, conversations=1)
        found = trace_trajectories(vlm, config, env, kind, 3, lambda line: None)
    mains = [one for one in found if one.kind == "main"]
    assert len(mains) == 4 and len(found) > 4
    for one in mains:
        assert [len(pair) for pair in one.prompt_images] == [2, 2, 2]
        assert vlm.tokenizer.decode(one.branch_ids[one.loss_mask]).endswith("</answer><|im_end|>")
    for one in found:
        images = len(one.prompt_images) + len(one.branch_images)
        assert images == vlm.tokenizer.decode([*one.prompt_ids, *one.branch_ids]).count(" seconds>")


def test_frames_of_every_video_half_of_them_of_events(vlm, world):
    config = SFTConfig(env=world, frames_per_video=20)
    config.agent.prompt_style = "compact"
    env = world.make(1)
    try:
        found = single_frames(vlm, config, env, np.random.default_rng(0))
    finally:
        env.close()
    said = [vlm.tokenizer.decode(t.branch_ids) for t in found]
    assert len(found) == 20
    assert sum("none" not in text for text in said) >= 10


def mains_of(vlm, world, **stage):
    config = SFTConfig(env=world)
    config.agent.prompt_style = "compact"
    env = world.make(8)
    try:
        kind = StageConfig(rollouts=8, conversations=1, **stage)
        found = trace_trajectories(vlm, config, env, kind, 3, lambda line: None)
    finally:
        env.close()
    return [t for t in found if t.kind == "main"]


def prompts_of(vlm, world, words):
    mains = mains_of(vlm, world, words=words)
    return [(vlm.tokenizer.decode(t.prompt_ids), len(t.prompt_images)) for t in mains]


def test_a_stage_may_call_more_often_than_the_traces_do(vlm, world):
    def calling(call):
        return sum(
            "start_time" in vlm.tokenizer.decode(t.branch_ids)
            for t in mains_of(vlm, world, call=call)
        )

    assert calling(0.0) == 0 < calling(1.0)


def test_words_stand_where_frames_were(vlm, world):
    frames, words = prompts_of(vlm, world, 0.0), prompts_of(vlm, world, 1.0)
    assert [count for _, count in frames] == [6] * 8 and [count for _, count in words] == [0] * 8
    for (shown, _), (said, _) in zip(frames, words, strict=True):
        assert shown.count("<|vision_start|>") == 6 and "<|vision_start|>" not in said
        asked = shown.rsplit("<|vision_end|>", 1)[1]
        assert asked.strip() and said.endswith(asked)  # the question is the same
        assert sum(said.count(f" {side} ") for side in ("left", "right")) >= 6
    some = [count for _, count in prompts_of(vlm, world, 0.5)]
    assert 0 < sum(some) < 48


def test_what_a_stage_must_hold():
    with pytest.raises(ValueError, match="nothing to learn"):
        StageConfig()
    with pytest.raises(ValueError, match="rollouts"):
        StageConfig(conversations=4)
    with pytest.raises(ValueError, match="rollouts"):
        StageConfig(frames=4, rollouts=8)
    with pytest.raises(ValueError, match="learning_rate"):
        StageConfig(frames=4, learning_rate=0.0)
    with pytest.raises(ValueError, match="share"):
        StageConfig(frames=4, words=1.5)
    with pytest.raises(ValueError, match="stages is empty"):
        SFTConfig(stages=())


def test_a_run_goes_through_its_stages_and_writes_a_checkpoint(world, tmp_path: Path):
    config = SFTConfig(
        env=world,
        mini=TINY,
        output=str(tmp_path / "out"),
        frames_per_video=4,
        log_every=2,
        stages=(
            StageConfig("frames", steps=2, frames=2, freeze_vision=False),
            StageConfig("words", steps=2, rollouts=8, words=1.0, conversations=2),
            StageConfig("all", steps=3, rollouts=8, conversations=2, readings=1, frames=1),
        ),
    )
    config.agent.prompt_style = "compact"
    config.evaluation.num_envs = 8
    folder = run(config, lambda line: None)
    records = [json.loads(line) for line in (folder / "sft.jsonl").read_text().splitlines()]
    assert [(r["stage"], r["step"]) for r in records] == [
        ("frames", 2), ("words", 2), ("all", 2), ("all", 3)
    ]  # fmt: skip
    VisionLanguageModel.load(folder)


class Saved:
    """A policy of files with one text each; the disk may be full after some of them."""

    def __init__(self, text, names, room=9):
        self.text, self.names, self.room = text, names, room

    def save(self, folder):
        folder.mkdir()
        for name in self.names[: self.room]:
            (folder / name).write_text(self.text)
        if len(self.names) > self.room:
            raise OSError(28, "No space left on device")


INDEX = "model.safetensors.index.json"
SHARDS = ["model-1.safetensors", "model-2.safetensors", INDEX]


def texts(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_policy_is_replaced_only_by_a_whole_one(tmp_path):
    (tmp_path / "config.yaml").write_text("mine")
    (tmp_path / "model.safetensors").write_text("of a smaller model, in one file")
    replace_policy(tmp_path, Saved("old", SHARDS), [])
    before = texts(tmp_path)
    assert before == {**dict.fromkeys(SHARDS, "old"), "sft.jsonl": "", "config.yaml": "mine"}
    with pytest.raises(OSError, match="No space"):
        replace_policy(tmp_path, Saved("new", SHARDS, room=1), [{"step": 1}])
    assert texts(tmp_path) == before
    replace_policy(tmp_path, Saved("new", SHARDS), [{"step": 1}])
    assert texts(tmp_path) == {
        **dict.fromkeys(SHARDS, "new"), "sft.jsonl": '{"step": 1}\n', "config.yaml": "mine"
    }  # fmt: skip


def test_two_policies_are_never_mixed(tmp_path, monkeypatch):
    replace_policy(tmp_path, Saved("old", SHARDS), [])
    replace = Path.replace

    def killed(self, target):
        if "model-2" in self.name:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        replace_policy(tmp_path, Saved("new", SHARDS), [])
    left = texts(tmp_path)
    assert {left["model-1.safetensors"], left["model-2.safetensors"]} == {"old", "new"}
    assert INDEX not in left

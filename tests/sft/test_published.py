"""Published conversations: their tokens, what is left out, and the runs of `paravt sft` on them."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support import gloo_processes
from support import published_rows as published
from support.builders import SIZE, make_task, write_manifest
from support.videos import read_index
from transformers import AutoModelForImageTextToText

from agents.algorithm.config import PARAGRPOConfig
from agents.model.mini import MiniConfig, build_mini
from agents.model.vlm import CheckpointError, VisionLanguageModel
from paravt_env.protocol.tags import Role
from train.common.errors import ConfigError
from train.config import recipe
from train.config.env import EnvConfig
from train.config.learner import OptimizerConfig
from train.config.parallel import ParallelConfig
from train.config.run import LoraConfig, RunConfig, TrainConfig
from train.config.sft import PublishedConfig, SFTConfig
from train.config.sft import StageConfig as Stage
from train.evaluation.agents import load_agent
from train.learner import weights as train_weights
from train.loop.launch import train
from train.rollout import play as rollout
from train.sft import stage as sft_stage
from train.sft.conversations import RECORD, PublishedConversations
from train.sft.sft import check, run
from train.workers import rollout_workers

SHAPE = MiniConfig(
    hidden_size=32, layers=1, heads=2, intermediate_size=32, vision_hidden_size=16, vision_layers=1,
    vision_heads=2, vision_intermediate_size=16, patch_size=8, vocabulary=280,
)  # fmt: skip
VIDEO = "museg/charades/3MSZA.mp4"
LOOK = (
    "<think>Two moments.</think>\n<tool_call>\n"
    '{"name": "crop_video", "arguments": {"start_time": 10, "end_time": 20}}\n</tool_call>'
)
SEEN = "<tool_response>\nCrop 1: a light at 12 s\n</tool_response>"
ANSWER = "<think>It goes on at 12 s.</think><answer>12.0-19.5</answer>"


def text(role: str, *parts: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]
    return {"role": role, "content": content}


def medium(url: str, kind: str = "video_url") -> dict[str, Any]:
    return {"type": kind, kind: {"url": url}}


CALLING = [
    text("system", "Think first."),
    text("user", medium(VIDEO), "When does the light go on?"),
    text("assistant", LOOK),
    text("tool", SEEN),
    text("assistant", ANSWER),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_mini(tmp_path_factory.mktemp("mini"), ["<think>light</think>"] * 4, SHAPE)


@pytest.fixture(scope="module")
def vlm(model):
    return VisionLanguageModel.load(model)


@pytest.fixture
def root(tmp_path: Path, clip: str) -> Path:
    path = tmp_path / "data" / VIDEO
    path.parent.mkdir(parents=True)
    shutil.copy(clip, path)
    return tmp_path / "data"


def settings(
    root: Path, *conversations: Any, tasks: str = "paravt_sft", **changes: Any
) -> SFTConfig:
    """Settings over these conversations (or rows of LongVideo-Reason)."""
    rows = conversations or (CALLING,)
    if tasks == "paravt_sft":
        rows = tuple({"messages": json.dumps(messages)} for messages in rows)
        published.write_rows(root / "paravt_sft_tvg_6k3.parquet", *rows)
    else:
        published.write_rows(root / "train.jsonl", *rows)
    kwargs = {"root": str(root), "strict": False}
    env = EnvConfig(
        tasks=tasks, tasks_kwargs=kwargs, frame_size=SIZE, frame_budget=4, frames_per_crop=3
    )
    return SFTConfig(**{"env": env, "stages": (Stage("all", steps=4, published=2),), **changes})


def written(vlm: Any, config: SFTConfig, folder: Path | None = None) -> Any:
    """The trajectories of one epoch in the order of the file, and what wrote them."""
    with closing(config.env.make(1)) as env:
        shipped = PublishedConversations(vlm, config, env, folder)
        indices = range(len(env.simulation.tasks))
        return shipped.write(indices, np.random.default_rng(0)), shipped


def one(vlm: Any, root: Path, messages: Any, **changes: Any) -> Any:
    (found,), _ = written(vlm, settings(root, messages, **changes))
    return found


def trained(vlm: Any, trajectory: Any) -> str:
    return vlm.tokenizer.decode(trajectory.branch_ids[trajectory.loss_mask])


# What a conversation's tokens are


def test_exactly_the_assistants_text_is_trained(vlm, root):
    found = one(vlm, root, CALLING)
    assert trained(vlm, found) == f"{LOOK}<|im_end|>{ANSWER}<|im_end|>"
    between = f"\n<|im_start|>user\n{SEEN}<|im_end|>\n<|im_start|>assistant\n"
    assert vlm.tokenizer.decode(found.branch_ids) == f"{LOOK}<|im_end|>{between}{ANSWER}<|im_end|>"
    roles = set(found.roles[~found.loss_mask].tolist())
    assert roles == {int(Role.response)}
    assert {Role.think, Role.call, Role.answer, Role.tag} <= set(found.roles[found.loss_mask])


@pytest.mark.parametrize("style", ["paravt", "compact", "reasoning"])
@pytest.mark.parametrize("turns", [0, 3])
def test_the_opening_is_that_of_a_rollout(vlm, model, root, style, turns):
    config = settings(root)
    config.agent = replace(
        config.agent, prompt_style=style, checkpoint=str(model), max_new_tokens=1, answer_tokens=1
    )
    config.env = replace(config.env, max_turns=turns)
    (found,), _ = written(vlm, config)
    with closing(config.env.make(1)) as env:
        agent = load_agent(config.agent, env.simulation.settings)
        (played,) = rollout.play(env, agent, [rollout.Start("paravt_sft-1", 4, 0)])
    expected = played.trajectories[0]
    assert found.prompt_ids.tolist() == expected.prompt_ids.tolist()
    pairs = zip(found.prompt_images, expected.prompt_images, strict=True)
    assert all(np.array_equal(own, other) for own, other in pairs)
    assert [read_index(image) for image in found.prompt_images] == [15, 45, 75, 105]


@pytest.mark.parametrize("opening", ["rollout", "published"])
def test_frames_as_video_are_the_tokens_of_a_rollout(vlm, model, root, other_clip, opening):
    shutil.copy(other_clip, root / "crop.mp4")
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(root / "frame.png")
    reply = text("tool", "two files: ", medium("frame.png", "image_url"), medium("crop.mp4"), "end")
    messages = [CALLING[0], text("user", medium(VIDEO), "Q?"), CALLING[2], reply, CALLING[4]]
    config = settings(root, messages, published=PublishedConfig(opening=opening))
    config.agent = replace(
        config.agent, frames_as="video", checkpoint=str(model), max_new_tokens=1, answer_tokens=1
    )
    (found,), _ = written(vlm, config)
    count = vlm.image_token_count(*SIZE)

    def clip(*stamps):
        pads = "<|video_pad|>" * count
        shown = "".join(f"<{s} seconds><|vision_start|>{pads}<|vision_end|>" for s in stamps)
        return f"<|vision_start|>{shown}<|vision_end|>"

    image = f"<|vision_start|>{'<|image_pad|>' * count}<|vision_end|>"
    assert clip("7.5", "22.5") in vlm.tokenizer.decode(found.prompt_ids)
    seen = f"two files: {image}{clip('10.0', '25.0')}end"
    assert seen in vlm.tokenizer.decode(found.branch_ids)
    shown = [image.shape for image in found.branch_images]
    assert shown == [(*SIZE, 3), (2, *SIZE, 3), (2, *SIZE, 3)]
    assert [read_index(frame) for frame in found.branch_images[2]] == [1100, 1100]
    if opening == "rollout":
        with closing(config.env.make(1)) as env:
            agent = load_agent(config.agent, env.simulation.settings)
            (played,) = rollout.play(env, agent, [rollout.Start("paravt_sft-1", 4, 0)])
        assert found.prompt_ids.tolist() == played.trajectories[0].prompt_ids.tolist()


def test_a_checkpoint_without_a_video_channel_is_refused_before_a_file_is_opened(root):
    config = settings(root)
    config.agent = replace(config.agent, frames_as="video")
    with pytest.raises(CheckpointError, match="no video processor"):
        written(VisionLanguageModel.load("paravt_mini"), config)


def test_an_opening_as_published(vlm, root):
    as_is = PublishedConfig(opening="published")
    config = settings(root, published=as_is)
    config.agent.prompt_style = "compact"
    (found,), _ = written(vlm, config)
    count = vlm.image_token_count(*SIZE)
    frame = f"<|vision_start|>{'<|image_pad|>' * count}<|vision_end|>"
    times = [(1, 0, 4, 44), (2, 0, 11, 51), (3, 0, 19, 59), (4, 0, 26, 66)]
    overview = "".join(f" {n} {a} {t} {b}{frame}" for n, a, t, b in times)
    assert vlm.tokenizer.decode(found.prompt_ids) == (
        "<|im_start|>system\nThink first.<|im_end|>\n<|im_start|>user\n"
        f"{overview}\nWhen does the light go on?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert trained(vlm, found) == f"{LOOK}<|im_end|>{ANSWER}<|im_end|>"


def test_crop_frames_stand_where_the_conversation_has_them(vlm, root, other_clip):
    shutil.copy(other_clip, root / "crop.mp4")
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(root / "frame.png")
    reply = text("tool", "two files: ", medium("frame.png", "image_url"), medium("crop.mp4"), "end")
    found = one(vlm, root, [*CALLING[:3], reply, text("user", "So?"), CALLING[4]])
    image, *clip = found.branch_images
    assert (image.shape, image.mean()) == ((*SIZE, 3), 200.0)
    assert [read_index(frame) for frame in clip] == [1020, 1060, 1100]  # thirds of 30 s at 4 fps
    count = vlm.image_token_count(*SIZE)
    frame = f"<|vision_start|>{'<|image_pad|>' * count}<|vision_end|>"
    shown = "".join(f"<{time} seconds>{frame}" for time in ("5.0", "15.0", "25.0"))
    expected = f"<tool_response>\ntwo files: {frame}{shown}end\n</tool_response>\nSo?<|im_end|>"
    assert expected in vlm.tokenizer.decode(found.branch_ids)


def test_what_follows_the_last_turn_is_left_off(vlm, root):
    messages = [*CALLING, text("user", "Thank you.")]
    assert "Thank" not in vlm.tokenizer.decode(one(vlm, root, messages).branch_ids)


def test_reasoning_becomes_a_thought_and_an_answer(vlm, root):
    row = {**published.LONGVIDEO_REASON, "videos": VIDEO}
    tagged = {**row, "problem_id": 8, "reasoning": "<think>\nIt is so.\n</think>"}
    found, _ = written(vlm, settings(root, row, tagged, tasks="longvideo_reason"))
    assert [trained(vlm, one) for one in found] == [
        f"<think>\n{thought}\n</think>\n<answer>B</answer><|im_end|>"
        for thought in ("The sequence begins by ...", "It is so.")
    ]
    asked = vlm.tokenizer.decode(found[0].prompt_ids)
    assert "What is the goal of the chase?\nA. To eat\nB. To contrast\nC. To rest" in asked


# What is left out

BROKEN = [
    ("malformed", [*CALLING[:2], CALLING[3]], "no message has the role 'assistant'"),
    ("malformed", [CALLING[0], CALLING[4], CALLING[1]], "no question before"),
    ("malformed", [CALLING[1], CALLING[2], CALLING[4]], "two assistant turns in a row"),
    ("malformed", [CALLING[1], text("assistant", " "), CALLING[3], CALLING[4]], "or empty"),
    ("malformed", [*CALLING[:3], CALLING[0], CALLING[4]], "system message after"),
    ("malformed", [*CALLING[:3], text("critic", "No."), CALLING[4]], "role 'critic'"),
    ("malformed", [*CALLING[:3], {"role": "tool"}, CALLING[4]], "message 4: content"),
    ("malformed", [*CALLING[:3], text("tool", {"type": "audio"}), CALLING[4]], "message 4: a part"),
    ("malformed", [*CALLING[:3], text("tool", "<|image_pad|>"), CALLING[4]], r"<\|image_pad\|> as"),
    ("malformed", [*CALLING[:3], text("tool", "<|im_end|>"), CALLING[4]], r"<\|im_end\|> as text"),
    ("media", [text("user", medium("museg/gone.mp4"), "When?"), CALLING[4]], "gone.mp4"),
    ("media", [*CALLING[:3], text("tool", medium("gone.png", "image_url")), CALLING[4]], "gone"),
    ("media", [*CALLING[:3], text("tool", medium("../x.mp4")), CALLING[4]], "not inside"),
    ("opening", [text("user", medium(VIDEO), medium(VIDEO), "When?"), CALLING[4]], "video_url, vi"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "messages", "why"), BROKEN)
def test_a_conversation_that_cannot_be_used_is_named(vlm, root, kind, messages, why):
    found, shipped = written(vlm, settings(root, CALLING, messages), root)
    assert len(found) == 1
    assert shipped.counts() == {kind: 1}
    (line,) = map(json.loads, (root / RECORD).read_text().splitlines())
    assert line["reason"] == kind and "2" in line["name"]
    with pytest.raises(ValueError, match=why):
        raise shipped.left_out[line["name"]]


def test_a_question_about_several_files_is_trained_as_it_is(vlm, root, other_clip):
    shutil.copy(other_clip, root / "more.mp4")
    messages = [text("user", medium(VIDEO), medium("more.mp4"), "Which?"), CALLING[4]]
    found = one(vlm, root, messages, published=PublishedConfig(opening="published"))
    indices = [read_index(image) for image in found.prompt_images]
    assert indices == [15, 45, 75, 105, 1020, 1060, 1100]


def test_reasoning_that_is_missing_is_named(vlm, root):
    row = {**published.LONGVIDEO_REASON, "videos": VIDEO}
    rows = [row, {**row, "problem_id": 8, "reasoning": None}]
    rows.append({**row, "problem_id": 9, "reasoning": "so <answer>A</answer>"})
    found, shipped = written(vlm, settings(root, *rows, tasks="longvideo_reason"))
    assert len(found) == 1 and shipped.counts() == {"malformed": 2}
    assert [str(reason) for reason in shipped.left_out.values()] == [
        "'reasoning' is empty",
        "'reasoning': a tag inside a block: 'so <answer>A</answer>'",
    ]


def test_too_many_tokens_for_one_frame_budget_may_be_few_enough_for_another(vlm, root):
    (found,), _ = written(vlm, settings(root))
    limit = PublishedConfig(max_tokens=len(found))
    assert len(written(vlm, settings(root, published=limit))[0]) == 1
    short = PublishedConfig(max_tokens=len(found) - 1)
    config = settings(root, published=short)
    config.env = replace(config.env, frame_budget={"kind": "choice", "values": [2, 4]})
    with closing(config.env.make(1)) as env:
        shipped = PublishedConversations(vlm, config, env)
        rng = np.random.default_rng(0)
        tries = [len(shipped.write([0], rng)) for _ in range(20)]
    assert 0 < sum(tries) < 20
    assert shipped.counts() == {"too_long": 1}


def test_the_stream_goes_through_the_set_in_epochs(vlm, root):
    asked = [
        [text("user", medium(VIDEO), f"{n}?"), text("assistant", f"<answer>{n}</answer>")]
        for n in "abc"
    ]
    gone = [text("user", medium("gone.mp4"), "d?"), CALLING[4]]
    with closing((config := settings(root, *asked, gone)).env.make(1)) as env:
        shipped = PublishedConversations(vlm, config, env)
        stream = shipped.stream(np.random.default_rng(1))
        said = [trained(vlm, next(stream)) for _ in range(12)]
    epochs = [said[at : at + 3] for at in range(0, 12, 3)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1
    assert shipped.counts() == {"media": 1}


@pytest.mark.parametrize("taken", [0, 1, 2, 3, 5, 8])
def test_the_stream_goes_on_where_it_was(vlm, root, tmp_path, taken):
    asked = [
        [text("user", medium(VIDEO), f"{n}?"), text("assistant", f"<answer>{n}</answer>")]
        for n in "abcde"
    ]
    gone = [text("user", medium("gone.mp4"), "d?"), CALLING[4]]
    budget = {"kind": "uniform", "low": 1, "high": 9}
    config = settings(root, *asked[:3], gone, *asked[3:])
    config.env = replace(config.env, frame_budget=budget)
    config.evaluation = replace(config.evaluation, num_envs=2)

    def drawn(stream, count):
        return [(trained(vlm, one), len(one.prompt_images)) for one in map(next, [stream] * count)]

    with closing(config.env.make(2)) as env:
        rng = np.random.default_rng(1)
        shipped = PublishedConversations(vlm, config, env)
        stream = shipped.stream(rng)
        drawn(stream, taken)
        place = json.loads(json.dumps([stream.place(), rng.bit_generator.state]))
        counted, expected = shipped.counts(), drawn(stream, 9)
        again, fresh = np.random.default_rng(7), PublishedConversations(vlm, config, env, tmp_path)
        other = fresh.stream(again)
        other.go_to(place[0])
        again.bit_generator.state = place[1]
        assert fresh.counts() == counted
        assert drawn(other, 9) == expected
        assert len((tmp_path / RECORD).read_text().splitlines()) == 1


def test_nothing_left_is_an_error(vlm, root):
    gone = [text("user", medium("gone.mp4"), "When?"), CALLING[4]]
    config = settings(root, gone)
    with closing(config.env.make(1)) as env:
        shipped = PublishedConversations(vlm, config, env)
        with pytest.raises(ConfigError, match=r"none of the 1 conversations.*media.*gone\.mp4"):
            next(shipped.stream(np.random.default_rng(0)))


def test_no_row_that_is_a_conversation_is_an_error(root):
    config = settings(root, CALLING[:2], output=str(root / "out"))
    with pytest.raises(ConfigError, match=r"none of the 1 rows of paravt_sft.*row 1.*'assistant'"):
        run(config, lambda line: None)


def test_a_set_that_publishes_no_conversations(clip, tmp_path):
    manifest = write_manifest(tmp_path / "tasks.jsonl", [make_task(clip)])
    (tmp_path / "clip.mp4").symlink_to(clip)
    env = EnvConfig(tasks=manifest, tasks_kwargs={"strict": False})
    config = SFTConfig(env=env, output=str(tmp_path / "out"), stages=(Stage(published=1),))
    with pytest.raises(ConfigError, match=r"tasks\.?.*paravt_sft or longvideo_reason"):
        run(config, lambda line: None)


# Runs


def trained_run(
    root: Path, model: Path, name: str, dtype: str = "float32", **changes: Any
) -> tuple[Path, list[Any]]:
    """A run on one conversation and one that is left out: its folder and its log."""
    gone = [text("user", medium("gone.mp4"), "When?"), CALLING[4]]
    changes = {"output": str(root / name), "log_every": 1, "learning_rate": 1e-2, **changes}
    config = settings(root, CALLING, gone, **changes)
    config.agent = replace(config.agent, checkpoint=str(model), prompt_style="compact", dtype=dtype)
    folder = run(config, lambda line: None)
    return folder, [json.loads(line) for line in (folder / "sft.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def changed(before: Path, after: Path) -> set[str]:
    """Names of the weights that differ; both hold the same ones in the same dtype."""
    old, new = weights(before), weights(after)
    assert {k: v.shape for k, v in old.items()} == {k: v.shape for k, v in new.items()}
    return {name for name in old if not torch.equal(old[name].float(), new[name].float())}


def test_two_steps_lower_the_loss_and_the_checkpoint_is_a_standard_one(root, model):
    folder, records = trained_run(root, model, "full")
    losses = [record["loss"] for record in records]
    assert losses[2] < losses[0] and losses[3] < losses[1]
    assert records[-1]["left_out"] == {"media": 1}
    names = changed(model, folder)
    assert any("language_model" in name for name in names)
    assert not any("visual" in name for name in names)
    plain = AutoModelForImageTextToText.from_pretrained(folder)
    assert type(plain).__name__ == "Qwen3VLForConditionalGeneration"
    assert (folder / RECORD).read_text().count("\n") == 1
    assert recipe.load(SFTConfig, folder / "config.yaml").stages[0].published == 2


def test_the_vision_tower_learns_where_it_is_asked_to(root, model):
    stages = (Stage(steps=1, published=1, freeze_vision=False),)
    folder, _ = trained_run(root, model, "vision", stages=stages)
    assert any("visual" in name for name in changed(model, folder))


def test_adapters_are_trained_and_merged(root, model):
    folder, records = trained_run(
        root, model, "lora", lora=LoraConfig(rank=4), parallel=ParallelConfig(recompute=True)
    )
    assert records[3]["loss"] < records[0]["loss"]
    names = changed(model, folder)
    assert names and all("_proj" in name and "language_model" in name for name in names)
    loaded = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)[1]
    assert not any(loaded.values())


def test_recomputation_changes_nothing_over_several_stages(root, model):
    stages = (Stage("one", steps=2, published=1), Stage("two", steps=2, published=1))
    runs = [
        trained_run(root, model, name, stages=stages, parallel=ParallelConfig(recompute=again))
        for name, again in (("kept", False), ("again", True))
    ]
    assert runs[0][1][-1]["loss"] == pytest.approx(runs[1][1][-1]["loss"], rel=1e-4)


def test_each_block_is_recomputed_once_in_every_stage(root, model, monkeypatch):
    calls = []
    checkpoint = train_weights.checkpoint

    def counted(*args, **kwargs):
        calls.append(args[0])
        return checkpoint(*args, **kwargs)

    monkeypatch.setattr(train_weights, "checkpoint", counted)
    stages = (Stage("one", steps=2, published=1), Stage("two", steps=3, published=1))
    trained_run(root, model, "again", stages=stages, parallel=ParallelConfig(recompute=True))
    assert len(calls) == 5  # the decoder has one block; the tower is frozen
    calls.clear()
    trained_run(root, model, "kept", stages=stages)
    assert not calls


def test_every_stage_trains_in_bfloat16(root, model):
    stages = (Stage("one", steps=1, published=1), Stage("two", steps=3, published=1))
    folder, records = trained_run(root, model, "low", "bfloat16", stages=stages)
    assert all(tensor.dtype == torch.bfloat16 for tensor in weights(folder).values())
    losses = [record["loss"] for record in records]
    assert len(set(losses)) == 4 and losses[3] < losses[1] < losses[0]


def test_checkpoints_inside_a_stage(root, model, monkeypatch):
    saved = []
    save = VisionLanguageModel.save

    def counted(self, folder):
        saved.append(folder)
        save(self, folder)

    monkeypatch.setattr(VisionLanguageModel, "save", counted)
    trained_run(root, model, "often", save_every=2, stages=(Stage(steps=5, published=1),))
    kept = [folder.parent.name for folder in saved if folder.name == "model"]
    assert kept == [f".step-00000{step}.partial" for step in (2, 4, 5)]


def in_a_process(config: SFTConfig) -> list[str]:
    """Run, and say where each stage's learner kept its weights."""
    kept: list[str] = []

    class Noted(sft_stage.Learner):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            kept.append(type(self.weights).__name__)

    sft_stage.Learner, own = Noted, sft_stage.Learner  # type: ignore[misc]
    try:
        run(config, lambda line: None)
    finally:
        sft_stage.Learner = own  # type: ignore[misc]
    return kept


def test_two_processes_learn_what_one_does(root, model):
    asked = [
        [text("user", medium(VIDEO), f"{n}?"), text("assistant", f"<answer>{n}</answer>")]
        for n in "abc"
    ]
    found = []
    for world in (1, 2):
        config = settings(root, *asked, output=str(root / f"of{world}"), log_every=1)
        config = replace(config, learning_rate=1e-2, stages=(Stage(steps=2, published=3),))
        config.agent = replace(config.agent, checkpoint=str(model), prompt_style="compact")
        if world == 1:
            assert in_a_process(config) == ["Weights"]
        else:
            assert gloo_processes.run(in_a_process, 2, config) == [["ShardedWeights"]] * 2
        folder = root / f"of{world}"
        records = map(json.loads, (folder / "sft.jsonl").read_text().splitlines())
        found.append(([record["loss"] for record in records], weights(folder)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    for name, value in found[0][1].items():
        assert torch.allclose(value, found[1][1][name], atol=1e-3), name


def test_what_several_processes_cannot_do(root, monkeypatch):
    from train.distributed.processes import Group, Processes

    two = Processes(world=Group(0, 2))
    with pytest.raises(ConfigError, match="published conversations alone"):
        check(SFTConfig(), two)
    split = SFTConfig(stages=(Stage(published=1),), parallel=ParallelConfig(layout="disaggregated"))
    with pytest.raises(ConfigError, match="layout=disaggregated"):
        check(split, two)


# Recipes


@pytest.mark.parametrize("name", ["paravt_8b", "paravt_mini", "longvila_8b", "longvila_mini"])
def test_recipes(name):
    overrides = ["--env.tasks_kwargs.root=/data", "--lora.rank=8"]
    config = recipe.load(SFTConfig, f"sft_{name}", overrides)
    assert config.run.name == f"sft_{name}"
    assert config.env.tasks_kwargs == {"root": "/data", "strict": False}
    assert (config.lora.rank, config.stages[0].rollouts) == (8, 0)
    mini = name.endswith("mini")
    assert config.agent.checkpoint == ("paravt_mini" if mini else "Qwen/Qwen3-VL-8B-Instruct")
    if name == "paravt_8b":
        assert (config.learning_rate, config.warmup_fraction, config.weight_decay) == (
            2e-5, 0.05, 0.01,
        )  # fmt: skip
        assert (config.stages[0].steps, config.micro_batch_tokens) == (1500, 8192)
        assert (config.env.frame_budget, config.published.max_tokens) == (64, 8192)
    if name == "longvila_8b":
        assert (config.env.tasks, config.env.frame_budget) == ("longvideo_reason", 512)
        assert (config.env.max_turns, config.agent.prompt_style) == (0, "reasoning")


def test_a_stage_of_published_conversations_is_checked():
    assert Stage(published=2).conversations == 0
    with pytest.raises(ValueError, match="published = -1"):
        Stage(published=-1)
    with pytest.raises(ValueError, match="opening"):
        PublishedConfig(opening="mine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_tokens"):
        PublishedConfig(max_tokens=-1)


@pytest.mark.skipif(not os.environ.get("PARAVT_NIGHTLY"), reason="nightly: 100 M parameters")
@pytest.mark.parametrize("rank", [0, 8])
def test_a_model_of_a_hundred_million_parameters(root, tmp_path, rank, monkeypatch):
    """`paravt sft`, then `paravt train` on what it wrote; bf16, recomputation, full and LoRA."""
    shape = replace(
        SHAPE, hidden_size=768, layers=16, heads=12, intermediate_size=2304,
        vision_hidden_size=256, vision_layers=4, vision_heads=4, vision_intermediate_size=1024,
    )  # fmt: skip
    model = build_mini(tmp_path / "model", ["<think>light</think>"] * 4, shape)
    config = settings(root, output=str(tmp_path / "out"), log_every=1, learning_rate=1e-3)
    config.stages = (Stage("full", steps=3, published=1),)
    config.agent = replace(
        config.agent, checkpoint=str(model), prompt_style="compact", dtype="bfloat16"
    )
    config.parallel, config.lora = ParallelConfig(recompute=True), LoraConfig(rank=rank)
    folder = run(config, lambda line: None)
    records = [json.loads(line) for line in (folder / "sft.jsonl").read_text().splitlines()]
    assert records[2]["loss"] < records[0]["loss"]
    plain = AutoModelForImageTextToText.from_pretrained(folder)
    assert 100e6 < sum(p.numel() for p in plain.parameters()) < 300e6

    def play(env, agent, starts, progress=None):
        """A random policy earns nothing: its rollouts are paid one after the other."""
        played = rollout.play(env, agent, starts, progress)
        return [replace(one, reward=float(i)) for i, one in enumerate(played)]

    monkeypatch.setattr(rollout_workers, "play", play)
    further = TrainConfig(
        env=replace(config.env, max_turns=0, frame_budget=2),
        agent=replace(config.agent, checkpoint=str(folder), answer_tokens=4),
        algorithm=PARAGRPOConfig(groups=1, group_size=2, kl_coefficient=0.0, batch_normalise=False),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        run=RunConfig(folder=str(tmp_path), steps=1, wandb="disabled", checkpoint_every=0),
        parallel=config.parallel,
        lora=config.lora,
    )
    saved = train(further)
    assert changed(folder, saved)
    assert {t.dtype for t in weights(saved).values()} == {torch.bfloat16}
    loaded = AutoModelForImageTextToText.from_pretrained(saved, output_loading_info=True)[1]
    assert not any(loaded.values())

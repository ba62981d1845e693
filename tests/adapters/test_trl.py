"""The real GRPOTrainer plays and trains; skipped where TRL is not installed."""

import json
import os
import runpy
from pathlib import Path

import numpy as np
import pytest
from support.builders import SIZE, write_manifest

from train.adapters.tool_calling import turn_text
from train.adapters.trl import TRLGame

trl = pytest.importorskip("trl")
import torch  # noqa: E402
from support.processors import tiny_checkpoint  # noqa: E402
from trl.chat_template_utils import qwen3_vl_chat_template  # noqa: E402

ROOT = Path(__file__).parents[2]
G = 4
SETTINGS = {"frame_size": SIZE, "max_turns": 1, "max_crops": 2, "frames_per_crop": 2}
ARGUMENTS = '{"name": "crop_video", "arguments": {"start_time": %s, "end_time": %s}}'
CALL = f"<tool_call>\n{ARGUMENTS}\n</tool_call>"
WRITTEN = [
    ["<think>\na look at the middle\n</think>\n" + CALL % (10, 14) + "\n" + CALL % (15, 18),
     "<think>\nit was the blue one\n</think>\n<answer>B</answer>"],
    ["<answer>B</answer>"],
    ["<think>\non and on"],
    [CALL % (9, 3), "<answer>A</answer>"],
]  # fmt: skip
"""What a scripted policy writes in the four rollouts of a group, turn by turn."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model", qwen3_vl_chat_template)


def trainer_of(game, checkpoint, folder, **arguments):
    torch.set_num_threads(1)
    config = trl.GRPOConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, report_to=[], max_steps=2,
        per_device_train_batch_size=G, num_generations=G, logging_steps=1, seed=3,
        save_strategy="no", beta=0.0, **{"max_completion_length": 400, **arguments}, **game.config,
    )  # fmt: skip
    return trl.GRPOTrainer(
        checkpoint,
        args=config,
        train_dataset=game.dataset(seed=1),
        environment_factory=game.environment,
        reward_funcs=game.reward_funcs,
    )


def script(trainer, monkeypatch, written=WRITTEN):
    """Let the texts be written in place of sampled tokens; returns what was shown each time."""
    tokenizer = trainer.processing_class.tokenizer
    turns, shown = [0] * G, []

    def generate(prompt_ids, images, fields, num_generations, has_tool_images=False):
        rows = range(G) if len(prompt_ids) == G else playing
        ids = []
        for row in rows:
            text = written[row][turns[row]]
            turns[row] += 1
            ids.append(tokenizer(text + "<|im_end|>")["input_ids"])
        playing[:] = [row for row in rows if turns[row] < len(written[row])]
        shown.append((prompt_ids, images))
        return ids, None

    playing = []
    monkeypatch.setattr(trainer, "_generate_single_turn", generate)
    return shown


def test_a_group_of_written_rollouts(tasks, checkpoint, tmp_path, monkeypatch):
    game = TRLGame(tasks, **SETTINGS, frame_budget=3)
    trainer = trainer_of(game, checkpoint, tmp_path)
    shown = script(trainer, monkeypatch)
    steps, step = [], game.simulation.step
    monkeypatch.setattr(
        game.simulation, "step", lambda rows, actions: steps.append(rows) or step(rows, actions)
    )
    heard, score = {}, game.score
    monkeypatch.setattr(
        game,
        "score",
        lambda starts, chats: heard.update(starts=starts, chats=chats) or score(starts, chats),
    )
    row = {**game.dataset(seed=1)[0], "task_id": "colour"}
    batch = trainer._generate_and_score_completions([row] * G)

    # K pictures in the prompt of each rollout, and two of each crop after the first one's calls
    image = trainer.processing_class.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    per_picture = (SIZE[0] // 16) * (SIZE[1] // 16)
    first, second = (prompts for prompts, _ in shown)
    assert [ids.count(image) for ids in first] == [3 * per_picture] * G
    assert [ids.count(image) for ids in second] == [7 * per_picture, 3 * per_picture]
    assert len(set(map(tuple, first))) == 1
    # both calls of a turn in one step; the rest of the steps scores all four rollouts at once
    assert [len(rows) for rows in steps][:2] == [1, 1]

    # what is scored is what was written
    for written, chat in zip(WRITTEN, heard["chats"], strict=True):
        texts = [turn_text(m) for m in chat if m["role"] == "assistant"]
        assert [text.split() for text in texts] == [text.split() for text in written]
    played = score(heard["starts"], heard["chats"])
    totals = [
        sum(game.weights[name] * value for name, value in one.terms.items()) for one in played
    ]
    assert [one.terms["answer"] for one in played] == [1.0, 1.0, 0.0, 0.0]
    expected = (np.array(totals) - np.mean(totals)) / (np.std(totals, ddof=1) + 1e-4)
    assert batch["advantages"].flatten().tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    game.close()


def test_a_result_past_the_completions_length_is_taken_back_with_a_warning(
    tasks, checkpoint, tmp_path, monkeypatch
):
    game = TRLGame(tasks, **SETTINGS, frame_budget=3)
    trainer = trainer_of(game, checkpoint, tmp_path, max_completion_length=150)
    script(trainer, monkeypatch, [WRITTEN[0][:1]] + [WRITTEN[1]] * 3)
    row = {**game.dataset(seed=1)[0], "task_id": "colour"}
    with pytest.warns(UserWarning, match="TRL took the result back"):
        trainer._generate_and_score_completions([row] * G)
    game.close()


def test_two_updates_with_sampled_tokens(tasks, checkpoint, tmp_path, monkeypatch):
    game = TRLGame(tasks, **SETTINGS, frame_budget={"kind": "choice", "values": [1, 2]})
    trainer = trainer_of(game, checkpoint, tmp_path, max_completion_length=12)
    # a random policy earns nothing: a reward of its text gives the groups a variance
    monkeypatch.setattr(game, "_rewards", lambda name, completions, **_: [
        float(len(json.dumps(completion, default=str)) % 7) for completion in completions
    ])  # fmt: skip
    trainer.reward_funcs[: len(game.weights)] = game.reward_funcs
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    assert trainer.state.global_step == 2
    assert any(not torch.equal(before[n], p) for n, p in trainer.model.named_parameters())
    assert all(np.isfinite(log["loss"]) for log in trainer.state.log_history if "loss" in log)
    game.close()


def test_the_table_fixes_each_groups_start(tasks):
    game = TRLGame(tasks, **SETTINGS)
    table = game.dataset(seed=2, tasks=3)
    assert table["task_id"] == ["colour", "time", "shape"]
    for row in table:
        starts = {game.start(row["task_id"], None, row["seed"]).frame_budget for _ in range(3)}
        assert starts == {row["frame_budget"]}
    assert table[0] == game.dataset(seed=2)[0] != game.dataset(seed=3)[0]
    game.close()


def test_a_rows_nan_would_be_counted_as_zero(checkpoint, tasks, tmp_path, monkeypatch):
    """Why `filled` gives numbers: with several functions TRL adds a NaN of one as 0."""
    game = TRLGame(tasks, **SETTINGS, frame_budget=3)
    trainer = trainer_of(game, checkpoint, tmp_path)
    script(trainer, monkeypatch, [WRITTEN[1]] * G)
    trainer.reward_funcs[0] = lambda completions, **_: [1.0, 1.0, 1.0, None]
    trainer.reward_funcs[1] = lambda completions, **_: [0.0] * G
    trainer.reward_funcs[2] = lambda completions, **_: [0.0] * G
    batch = trainer._generate_and_score_completions([game.dataset(seed=1)[0]] * G)
    assert batch["advantages"].flatten()[-1] == pytest.approx(-1.5, abs=0.01)
    game.close()


def test_the_example_trains(checkpoint, tasks, tmp_path):
    example = runpy.run_path(str(ROOT / "examples" / "trl_grpo.py"))
    assert len((ROOT / "examples" / "trl_grpo.py").read_text().splitlines()) <= 40
    for task in tasks:
        link = tmp_path / Path(task.video).name
        link.exists() or os.link(task.video, link)
    manifest = write_manifest(tmp_path / "tasks.jsonl", tasks.tasks)
    example["main"](
        checkpoint, str(tmp_path / "out"), manifest, use_cpu=True, bf16=False, report_to=[],
        max_steps=1, max_completion_length=8, num_generations=2, per_device_train_batch_size=2,
    )  # fmt: skip
    assert (tmp_path / "out" / "model.safetensors").exists()

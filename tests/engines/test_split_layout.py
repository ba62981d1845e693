"""The split layout as `paravt train` runs it: one process serves vLLM, the other one trains."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from builders import make_task, write_manifest
from helpers import SMALL, settings
from processes import run
from test_split import process

from agents.paragrpo import PARAGRPOConfig
from train.config import EnvConfig, ParallelConfig, RunConfig, TrainConfig
from train.metrics import read_metrics

pytest.importorskip("vllm", reason="needs the vllm extra: make test-engines")


def test_a_server_plays_what_the_other_process_trains(
    folder: Path, clip: str, tmp_path: Path
) -> None:
    os.link(clip, tmp_path / Path(clip).name)
    config = TrainConfig(
        env=EnvConfig(
            tasks=write_manifest(tmp_path / "tasks.jsonl", [make_task(clip)]),
            frame_size=(64, 64), max_turns=1, max_crops=2, frames_per_crop=2, frame_budget=2,
        ),
        agent=settings(
            folder, engine="vllm_server", vllm=replace(SMALL, start_timeout=1000)
        ),
        algorithm=PARAGRPOConfig(
            groups=2, group_size=4, loss="tis", kl_coefficient=0.0, learning_rate=1e-3
        ),
        run=RunConfig(folder=str(tmp_path), steps=3, wandb="disabled", checkpoint_every=0),
        parallel=ParallelConfig(layout="split", timeout=1200),
    )  # fmt: skip
    (player, saved), (trainer, _) = run(process, 2, config)
    assert player == ["VLLMAgent"] * 3 and trainer == []
    assert (saved / "model.safetensors").exists()
    steps = read_metrics(config.run.path)
    assert len(steps) == 3
    for step in steps:
        # the server drew each batch with the weights of the update before
        assert step["grad_norm"] > 0 and step["staleness/max"] == 0
        assert step["behaviour_mismatch_max"] < 1e-4

"""The disaggregated layout in `paravt train`: one process serves vLLM, the other one trains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.engines import SMALL, settings, training
from support.gloo_processes import run
from support.tiny_runs import process

from train.common.metrics_file import read_metrics
from train.config.parallel import ParallelConfig

pytest.importorskip("vllm", reason="needs the vllm extra: make test-engines")


def test_a_server_plays_what_the_other_process_trains(
    folder: Path, clip: str, tmp_path: Path
) -> None:
    agent = settings(folder, engine="vllm_server", vllm=replace(SMALL, start_timeout=1000))
    config = training(agent, clip, tmp_path, steps=3)
    config.parallel = ParallelConfig(layout="disaggregated", timeout=1200)
    (player, saved), (trainer, _) = run(process, 2, config)
    assert player == ["VLLMAgent"] * 3 and trainer == []
    assert (saved / "model.safetensors").exists()
    steps = read_metrics(config.run.path)
    assert len(steps) == 3
    for step in steps:
        # the server drew each batch with the weights of the update before
        assert step["grad_norm"] > 0 and step["staleness/max"] == 0
        assert step["behaviour_mismatch_max"] < 1e-4

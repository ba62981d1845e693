"""The layout `colocated` as torchrun runs it: two processes, each with vLLM beside its learner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.engines import SMALL, settings, training

from train.common.metrics_file import read_metrics
from train.config import recipe
from train.config.parallel import ParallelConfig

pytest.importorskip("vllm", reason="needs the vllm extra: make test-engines")

HERE = Path(__file__).parent
PROCESS = HERE / "colocated_process.py"


def test_each_process_trains_with_an_engine_of_its_own(
    folder: Path, clip: str, tmp_path: Path
) -> None:
    agent = settings(folder, vllm=replace(SMALL, sync_deadline=1000))
    config = training(agent, clip, tmp_path, steps=3)
    config.parallel = ParallelConfig(timeout=1200)
    recipe.save(config, tmp_path)
    paths = [str(p) for p in (HERE.parents[1], HERE.parent)]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         str(PROCESS), str(tmp_path / "config.yaml"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=3000,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    assert "paravt: stopped" not in done.stderr
    steps = read_metrics(config.run.path)
    assert len(steps) == 3
    for step in steps:
        assert step["grad_norm"] > 0 and step["staleness/max"] == 0
        assert step["behaviour_mismatch_max"] < 1e-4
    both = [json.loads((tmp_path / f"seen-{rank}.json").read_text()) for rank in (0, 1)]
    for first, second in zip(*both, strict=True):
        if "joined" in first:
            # vLLM ended its own groups and left those of the run
            assert first == second == {"joined": 2}
            continue
        for seen in (first, second):
            assert seen["before"] > 1e-3, "the policy moved and the engine did not"
            assert seen["after"] < 1e-4
        assert first["ids"] == second["ids"]
        assert first["logprobs"] == pytest.approx(second["logprobs"], abs=1e-4)
    assert len(both[0]) == 3 + 1

"""One process of the job of `test_colocated_layout.py`: trains, and writes down what it saw.

Usage, under torchrun: `colocated_process.py CONFIG FOLDER`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from support.engines import conversation, frames, logprobs
from support.tiny_runs import varied

from agents.vllm.engine import Prompt
from train.config.recipe import load
from train.config.run import TrainConfig
from train.loop import launch
from train.workers import lanes, rollout_workers
from train.workers.rollout_workers import RolloutWorkers

TEMPERATURE = 0.7


def look(player: RolloutWorkers) -> tuple[float, list[int], list[float]]:
    """How far the engine is from this process's policy, and what it drew from a prompt."""
    vlm, engine = player.agents[0].vlm, player.engine
    context = conversation(vlm, frames(5, 1), "which of these frames was it, and when?")
    ((one, *_),) = engine.generate([Prompt(context, 4, 8, TEMPERATURE, 1)])
    expected = logprobs(vlm, context, one.ids, TEMPERATURE)
    apart = max(abs(a - b) for a, b in zip(one.logprobs, expected.tolist(), strict=True))
    return apart, one.ids, one.logprobs


def main(config: str, folder: str) -> None:
    """Train as `paravt train` does."""
    seen, changed, close = [], RolloutWorkers.weights_changed, RolloutWorkers.close

    def weights_changed(self: RolloutWorkers, version: int) -> None:
        before = look(self)[0]
        changed(self, version)
        after, ids, drawn = look(self)
        seen.append({"before": before, "after": after, "ids": ids, "logprobs": drawn})

    def closed(self: RolloutWorkers) -> None:
        close(self)
        seen.append({"joined": dist.is_initialized() and dist.get_world_size()})

    RolloutWorkers.weights_changed, RolloutWorkers.close = weights_changed, closed
    rollout_workers.play = lanes.play = varied
    torch.set_num_threads(1)
    launch.train(load(TrainConfig, config))
    said = Path(folder) / f"seen-{os.environ['RANK']}.json"
    said.write_text(json.dumps(seen), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

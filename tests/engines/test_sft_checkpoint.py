"""What `paravt sft` writes is what vLLM serves, unchanged: trained in full, or adapters merged.

With `PARAVT_NIGHTLY=1` the policy has 100 M parameters.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.engines import SHAPE, conversation, frames, logprobs, settings
from support.published_rows import PARAVT_SFT, write_rows

from agents.model.mini import build_mini
from agents.model.vlm import VisionLanguageModel
from agents.vllm.agent import EngineSampler
from agents.vllm.local import InProcessEngine
from train.config.env import EnvConfig
from train.config.learner import LoraConfig
from train.config.parallel import ParallelConfig
from train.config.sft import SFTConfig, StageConfig
from train.sft.sft import run

pytest.importorskip("vllm", reason="needs the vllm extra: make test-engines")

LARGE = replace(SHAPE, hidden_size=768, layers=16, heads=12, intermediate_size=2304)


def fine_tuned(root: Path, model: Path, rank: int) -> Path:
    """A run of three steps on one published conversation."""
    config = SFTConfig(
        env=EnvConfig(
            tasks="paravt_sft", tasks_kwargs={"root": str(root)}, frame_size=(64, 64),
            frame_budget=2,
        ),
        lora=LoraConfig(rank=rank),
        parallel=ParallelConfig(recompute=True),
        learning_rate=1e-3,
        log_every=1,
        stages=(StageConfig(steps=3, published=1),),
        output=str(root / f"rank{rank}"),
    )  # fmt: skip
    config.agent = replace(config.agent, checkpoint=str(model), prompt_style="compact")
    folder = run(config, lambda line: None)
    losses = [json.loads(line)["loss"] for line in (folder / "sft.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    return folder


def test_vllm_serves_the_checkpoint_as_it_is(clip: str, tmp_path: Path) -> None:
    """vLLM starts from one checkpoint and takes up the weights of the other."""
    torch.set_num_threads(1)
    video = tmp_path / "museg/charades/3MSZA.mp4"
    video.parent.mkdir(parents=True)
    shutil.copy(clip, video)
    write_rows(tmp_path / "paravt_sft_x.parquet", PARAVT_SFT)
    shape = LARGE if os.environ.get("PARAVT_NIGHTLY") else SHAPE
    model = build_mini(tmp_path / "model", ["<think>look</think>"] * 3, shape)
    full, adapted = (fine_tuned(tmp_path, model, rank) for rank in (0, 4))
    engine = InProcessEngine(settings(full), VisionLanguageModel.load(full, device="meta"))
    try:
        for folder in (full, adapted):
            vlm = VisionLanguageModel.load(folder)
            if folder is adapted:
                engine.load(vlm.model.named_parameters(), 1)
            context = conversation(vlm, frames(3), "which?")
            (one,) = EngineSampler(engine).sample([context], [12], 1.0)
            expected = logprobs(vlm, context, one.ids, 1.0)
            np.testing.assert_allclose(one.logprobs, expected, atol=2e-4)
    finally:
        engine.close()

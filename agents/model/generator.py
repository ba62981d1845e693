"""The trainer's side of an agent whose sampler draws with a torch generator.

What `agents.base.TrainableAgent` asks for beside playing; the transformers agent and the vLLM agent
share it. Tests: `pytest tests/workers/test_rollout_workers.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from agents.base import AgentStats


class DrawsWithTorch:
    """Generator and counters of an agent with a `sampler`."""

    sampler: Any
    """Has a torch `generator` and `stats`."""

    @property
    def stats(self) -> AgentStats:
        """What the sampler has drawn so far."""
        return self.sampler.stats

    def seed(self, seed: int) -> None:
        """Seed the sampler's generator."""
        self.sampler.generator.manual_seed(seed)

    def draw_seeds(self, count: int) -> list[int]:
        """`count` seeds drawn from the sampler's generator, where it is."""
        generator = self.sampler.generator
        drawn = torch.randint(2**31, (count,), generator=generator, device=generator.device)
        return drawn.tolist()

    def generator_state(self) -> np.ndarray:
        """State of the sampler's generator, uint8; a GPU's has another length than a CPU's."""
        return self.sampler.generator.get_state().numpy()

    def set_generator_state(self, state: np.ndarray) -> None:
        """Go on from a state.

        Raises:
            ValueError: It is that of a generator on another device.
        """
        generator = self.sampler.generator
        if len(state) != len(generator.get_state()):
            raise ValueError(
                f"{len(state)} bytes are no state of a generator on {generator.device}"
            )
        generator.set_state(torch.from_numpy(state.copy()))

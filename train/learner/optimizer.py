"""The optimizer of an update: AdamW, its learning rate, and which weights its decay spares.

Made once by the learner, whose steps it takes. Decoupled weight decay (arXiv 1711.05101) pulls the
matrices of layers towards 0; scales of norms, biases and embeddings are left alone, as 0 is no
better value for them than another. Command: `pytest tests/learner/test_optimizer.py`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch

from train.config.learner import OptimizerConfig


def spared(model: torch.nn.Module) -> set[str]:
    """Names of the parameters that weight decay leaves alone: norms, biases and embeddings.

    >>> sorted(spared(torch.nn.Sequential(torch.nn.Embedding(3, 2), torch.nn.Linear(2, 2))))
    ['0.weight', '1.bias']
    """
    embeddings = {
        id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)
    }
    return {name for name, p in model.named_parameters() if p.ndim < 2 or id(p) in embeddings}


def adamw(
    parameters: Mapping[str, torch.nn.Parameter],
    without_decay: Collection[str],
    config: OptimizerConfig,
) -> torch.optim.AdamW:
    """AdamW over `parameters`; those named in `without_decay` are a group that does not decay.

    Where nothing decays, or all does, they are one group in their own order.
    """
    decay = config.weight_decay
    apart = decay > 0 and not config.decay_all
    alone = {name for name in parameters if apart and name in without_decay}
    groups = [
        {
            "params": [p for name, p in parameters.items() if name not in alone],
            "weight_decay": decay,
        },
        {"params": [p for name, p in parameters.items() if name in alone], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=config.adam_betas,
    )


def rate(step: int, config: OptimizerConfig, last: int) -> float:
    """What the learning rate of an optimizer step is, as a share of its peak.

    It rises linearly over the warm-up, then stays or falls to `decay_to` at step `last`. The cosine
    is that of SGDR (arXiv 1608.03983) without restarts.

    Args:
        step: From 0.
        config: Warm-up and decay.
        last: Optimizer steps over which it falls; unused where it is constant.

    >>> [round(rate(s, OptimizerConfig(decay="linear", warmup_steps=1), 5), 3) for s in range(7)]
    [0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    if config.decay == "constant":
        return 1.0
    gone = min(1.0, (step - config.warmup_steps) / (last - config.warmup_steps))
    left = 1.0 - gone if config.decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * gone))
    return config.decay_to + (1.0 - config.decay_to) * left


def schedule(
    optimizer: torch.optim.Optimizer, config: OptimizerConfig, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The learning rate of every optimizer step of a run of `steps`; see `rate`."""
    last = config.decay_steps or steps
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, config, last))

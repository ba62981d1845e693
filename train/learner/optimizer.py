"""The optimizer of an update: AdamW with a warm-up, and which weights its decay spares.

Made once by the learner, whose steps it takes. Decoupled weight decay (arXiv 1711.05101) pulls the
matrices of layers towards 0; scales of norms, biases and embeddings are left alone, as 0 is no
better value for them than another. Command: `pytest tests/learner/test_optimizer.py`.
"""

from __future__ import annotations

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


def warm_up(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """The learning rate rises linearly over `steps` optimizer steps, and then stays."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / (steps + 1))
    )

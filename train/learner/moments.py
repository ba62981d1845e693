"""What a checkpoint holds of a learner beside its policy: moments, fp32 weights, schedule.

Between the learner and `train/learner/checkpoint.py`, for reinforcement learning and the cold
start alike. Nothing of it depends on the number of processes. Tests: `pytest
tests/learner/test_optimizer.py tests/loop/test_checkpoint.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from train.common.errors import ConfigError
from train.learner.learner import Learner
from train.learner.weights import like, whole


def learner_tensors(learner: Learner) -> dict[str, torch.Tensor]:
    """Moments and weights beside the policy; all processes call it, the leader gets them."""
    if not learner.processes.trains:
        return {}
    keep = learner.processes.leads
    return optimizer_tensors(learner.optimizer, keep) | learner.weights.state(keep)


def learner_state(learner: Learner) -> dict[str, Any]:
    """Names of the trained parameters, settings of the optimizer, where its schedule is."""
    return {
        "parameters": list(learner.weights.parameters),
        "optimizer": optimizer_groups(learner.optimizer),
        "scheduler": learner.scheduler.state_dict(),
    }


def restore_learner(
    learner: Learner, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]
) -> None:
    """Take up what `learner_tensors` and `learner_state` gave; the policy is loaded already.

    Raises:
        ConfigError: Other parameters were trained, or by an optimizer of other groups.
    """
    if "parameters" in state:  # older checkpoints do not name them
        learner.weights.check(state["parameters"])
    learner.weights.restore(tensors)
    if learner.processes.trains:
        restore_optimizer(learner.optimizer, tensors, state["optimizer"])
    learner.scheduler.load_state_dict(state["scheduler"])


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, keep: bool = True
) -> dict[str, torch.Tensor]:
    """The moments of every parameter, as `optimizer.<parameter>.<name>`.

    Sharded moments are gathered, one at a time, so that any number of processes can take them up:
    every training process calls this.

    Args:
        optimizer: Whose moments.
        keep: Whether this process needs the result; the others only take part.
    """
    tensors = {}
    for index, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            full = whole(value)
            if keep:
                tensors[f"optimizer.{index}.{name}"] = full.cpu()
    return tensors


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, torch.Tensor],
    groups: list[dict[str, Any]],
) -> None:
    """Put moments from `optimizer_tensors` and the settings of `optimizer_groups` back.

    Each is sharded as its parameter is, and a copy: what was loaded can be let go of.

    Raises:
        ConfigError: The optimizer has other parameter groups.
    """
    sizes = [len(group["params"]) for group in groups]
    if sizes != [len(group["params"]) for group in optimizer.param_groups]:
        raise ConfigError(
            f"the checkpoint's optimizer has parameter groups of {sizes}, this one of others: "
            "resume with the same optimizer.weight_decay and optimizer.decay_all (true where the "
            "run began before norms, biases and embeddings were spared)"
        )
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "optimizer":
            index, _, name = rest.partition(".")
            parameter = parameters[int(index)]
            moment = like(value, parameter)
            device = parameter.device if moment.shape == parameter.shape else moment.device
            state.setdefault(int(index), {})[name] = moment.to(device, copy=True)
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def optimizer_groups(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Settings of the parameter groups, as JSON holds them."""
    return json.loads(json.dumps(optimizer.state_dict()["param_groups"]))

"""Policy losses: from log-probabilities and advantages to one number a token.

The last stretch before the optimizer. A loss is a pure function of `LossInputs` (one entry a
trained token, flat over the batch) and returns `LossOutputs`: the loss of every token, still
differentiable, and what to log. The weight of each token is the aggregation's part, and is a
weight for each sequence that sums to one over all tokens; so micro-batches add up to the same
gradient in any order. A new loss is one function, and one entry in `LOSSES` or a door
(`algorithm.loss: "mine.py:loss"`); what it needs of the learner is a field of its entry. The same
goes for an aggregation.

Shapes: `_T` trained tokens, `_N` sequences. Command: `pytest tests/algorithm/test_losses.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from paravt_env.common.doors import chosen

if TYPE_CHECKING:
    import torch  # settings know the names of the losses, and need no torch for it


@dataclass(frozen=True)
class LossInputs:
    """The inputs of a policy loss; every tensor is float32 (T,) unless noted."""

    logprobs: torch.Tensor
    """Of the policy that is trained now; carries the gradient."""
    proximal: torch.Tensor
    """Of the policy at the start of the update (pi_prox, `old` in PPO); no gradient. See
    `Loss.own_proximal` for what older weights drew."""
    behaviour: torch.Tensor
    """Recorded when the token was sampled (pi_behave); no gradient."""
    advantages: torch.Tensor
    sequence: torch.Tensor
    """(T,) int64, which sequence each token belongs to. All trained tokens of a sequence are in the
    same call: packing never divides a branch."""
    clip_low: float = 0.2
    clip_high: float = 0.2
    behaviour_cap: float = 5.0
    ratio_cap: float = 5.0


@dataclass(frozen=True)
class LossOutputs:
    """The loss of each token (T,) and per-token quantities (T,) to be averaged for the log."""

    loss: torch.Tensor
    metrics: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Loss:
    """A loss and what it needs of the learner; called like its function."""

    function: Callable[[LossInputs], LossOutputs]
    own_proximal: bool = False
    """It corrects for the weights and the engine that drew a token by a weight of its own, pi_prox
    / pi_behave. A loss that does not has the recorded log-probabilities as pi_prox of what older
    weights drew, so that its ratio corrects for them; of what this version drew, pi_prox is the
    policy's own value at the start of the update, for every loss."""

    def __call__(self, inputs: LossInputs) -> LossOutputs:
        """The loss of every token."""
        return self.function(inputs)


def _clipped(ratio_T: torch.Tensor, inputs: LossInputs) -> LossOutputs:
    """-min(r A, clip(r, 1 - low, 1 + high) A) of any ratio r."""
    bounded_T = ratio_T.clamp(1 - inputs.clip_low, 1 + inputs.clip_high)
    objective_T = ratio_T * inputs.advantages
    bounded_objective_T = bounded_T * inputs.advantages
    metrics = {
        "clip_fraction": (bounded_objective_T < objective_T).float().detach(),
        "ratio": ratio_T.detach(),
    }
    return LossOutputs(-objective_T.minimum(bounded_objective_T), metrics)


def clipped(inputs: LossInputs) -> LossOutputs:
    """-min(r A, clip(r, 1 - low, 1 + high) A), r = pi / pi_prox.

    PPO (arXiv 1707.06347); unequal bounds as in DAPO (arXiv 2503.14476).
    """
    return _clipped((inputs.logprobs - inputs.proximal).exp(), inputs)


def gspo(inputs: LossInputs) -> LossOutputs:
    """The clipped loss with one ratio a sequence, s = (pi(y) / pi_prox(y))^(1 / |y|).

    GSPO (arXiv 2507.18071) in its token form, s_t = stopgrad(s) pi_t / stopgrad(pi_t): the value is
    that of s, the gradient of each token is weighed by its own advantage. With
    `aggregation=sequence_mean` and one advantage a sequence it is the sequence form exactly. The
    paper clips at 3e-4 below and 4e-4 above.
    """
    _, sequence_T = inputs.sequence.unique(return_inverse=True)
    lengths_N = sequence_T.bincount()
    difference_T = (inputs.logprobs - inputs.proximal).detach()
    sums_N = difference_T.new_zeros(len(lengths_N)).index_add(0, sequence_T, difference_T)
    ratio_T = (sums_N / lengths_N).exp()[sequence_T]
    return _clipped(ratio_T * (inputs.logprobs - inputs.logprobs.detach()).exp(), inputs)


def cispo(inputs: LossInputs) -> LossOutputs:
    """-stopgrad(min(r, ratio_cap)) A log pi, r = pi / pi_prox (CISPO, arXiv 2506.13585).

    The weight is clipped and not the objective, so that every token keeps a gradient.
    """
    ratio_T = (inputs.logprobs - inputs.proximal).exp().detach()
    metrics = {"clip_fraction": (ratio_T > inputs.ratio_cap).float(), "ratio": ratio_T}
    weight_T = ratio_T.clamp(max=inputs.ratio_cap)
    return LossOutputs(-weight_T * inputs.advantages * inputs.logprobs, metrics)


def decoupled(inputs: LossInputs) -> LossOutputs:
    """The clipped loss times pi_prox / pi_behave; a weight over the cap drops its token.

    Decoupled PPO (arXiv 2110.00641) with the mask of AReaL (arXiv 2505.24298), which ParaVT trains
    with (cap 5). A dropped token still counts where the loss is averaged.
    """
    outputs = clipped(inputs)
    weight_T = (inputs.proximal - inputs.behaviour).exp()
    kept_T = weight_T <= inputs.behaviour_cap
    weight_T = weight_T.where(kept_T, 0.0)
    metrics = {"behaviour_weight": weight_T, "behaviour_dropped": (~kept_T).float()}
    return LossOutputs(outputs.loss * weight_T, outputs.metrics | metrics)


def tis(inputs: LossInputs) -> LossOutputs:
    """The clipped loss times min(pi_prox / pi_behave, behaviour_cap).

    Truncated importance sampling, for a sampler whose numbers differ from the trainer's (F. Yao et
    al., "Your efficient RL framework secretly brings you off-policy RL training", 2025; cap 2).
    """
    outputs = clipped(inputs)
    weight_T = (inputs.proximal - inputs.behaviour).exp()
    truncated_T = weight_T > inputs.behaviour_cap
    weight_T = weight_T.clamp(max=inputs.behaviour_cap)
    metrics = {"behaviour_weight": weight_T, "behaviour_truncated": truncated_T.float()}
    return LossOutputs(outputs.loss * weight_T, outputs.metrics | metrics)


K3_LINEAR_FROM = 10.0
"""Log of the ratio pi_ref / pi from which `k3` follows its tangent: exp would overflow."""


def k1(logprobs_T: torch.Tensor, reference_T: torch.Tensor) -> torch.Tensor:
    """Log pi - log pi_ref, (T,): its mean over samples of pi is KL(pi || pi_ref), unbiased.

    In a reward its score-function gradient is that of the divergence, which that of `k3` is not.
    Source: J. Schulman, "Approximating KL divergence" (2020).
    """
    return logprobs_T - reference_T


def k3(logprobs_T: torch.Tensor, reference_T: torch.Tensor) -> torch.Tensor:
    """exp(d) - d - 1 with d = log pi_ref - log pi, (T,): estimates KL(pi || pi_ref), never < 0.

    Past d = `K3_LINEAR_FROM` the exponential is replaced by its tangent, so that a token that the
    policy has all but given up pulls with a finite gradient, still towards the reference.
    Source: J. Schulman, "Approximating KL divergence" (2020); the KL term of GRPO.
    """
    d = reference_T - logprobs_T
    bounded = d.clamp(max=K3_LINEAR_FROM)
    return bounded.exp() * (1 + d - bounded) - d - 1


def likelihood(inputs: LossInputs) -> LossOutputs:
    """-A log pi: maximum likelihood when every advantage is 1, which is supervised fine-tuning."""
    return LossOutputs(-inputs.advantages * inputs.logprobs, {})


LOSSES: dict[str, Loss] = {
    "likelihood": Loss(likelihood),
    "clipped": Loss(clipped),
    "gspo": Loss(gspo),
    "cispo": Loss(cispo),
    "decoupled": Loss(decoupled, own_proximal=True),
    "tis": Loss(tis, own_proximal=True),
}


def loss_named(name: str) -> Loss:
    """An entry of `LOSSES`, or the function or `Loss` behind `module:name` or `file.py:name`.

    Raises:
        ValueError: There is none.
    """
    found = chosen("algorithm.loss", name, LOSSES)
    return found if isinstance(found, Loss) else Loss(found)


def token_mean(lengths_N: np.ndarray, limit: int) -> np.ndarray:
    """Every trained token of the batch weighs the same (DAPO).

    >>> token_mean(np.array([1, 3]), limit=0).tolist()
    [0.25, 0.25]
    """
    return np.full(len(lengths_N), 1 / lengths_N.sum())


def sequence_mean(lengths_N: np.ndarray, limit: int) -> np.ndarray:
    """Mean over the tokens of a sequence, then over the sequences (GRPO).

    >>> sequence_mean(np.array([1, 4]), limit=0).tolist()
    [0.5, 0.125]
    """
    return 1 / (len(lengths_N) * np.maximum(lengths_N, 1))


def dr_grpo(lengths_N: np.ndarray, limit: int) -> np.ndarray:
    """Every token weighs 1 / (sequences * limit), however long its sequence is (Dr.GRPO).

    The constant limit stands where `sequence_mean` divides by each sequence's own length, which
    makes long wrong answers cheap (arXiv 2503.20783). It is no mean: the limit scales the gradient.
    A sequence is a conversation with all its turns, or a sub-agent's reading.

    Raises:
        ValueError: The limit is not positive.

    >>> dr_grpo(np.array([1, 4]), limit=10).tolist()
    [0.05, 0.05]
    """
    if limit < 1:
        raise ValueError(
            f"dr_grpo divides by the length limit, which must be positive, not {limit}"
        )
    return np.full(len(lengths_N), 1 / (len(lengths_N) * limit))


Aggregation = Callable[[np.ndarray, int], np.ndarray]
"""Trained tokens (N,) and the length limit -> what a token of each sequence weighs, (N,)."""

AGGREGATIONS: dict[str, Aggregation] = {
    "token_mean": token_mean,
    "sequence_mean": sequence_mean,
    "dr_grpo": dr_grpo,
}


def aggregation_named(name: str) -> Aggregation:
    """An entry of `AGGREGATIONS`, or the function behind `module:name` or `file.py:name`.

    Raises:
        ValueError: There is none.
    """
    return chosen("algorithm.aggregation", name, AGGREGATIONS)

"""Policy losses against values worked out by hand, and their gradients."""

import math

import numpy as np
import pytest
import torch

from agents.losses import AGGREGATIONS, LossInputs, clipped, decoupled, k3


def inputs(ratios, advantages, behaviour_weights=None, **bounds):
    """Log-probabilities whose pi / pi_prox and pi_prox / pi_behave are as given; pi_prox is 1/2."""
    proximal = torch.full((len(ratios),), math.log(0.5))
    weights = torch.tensor(behaviour_weights or [1.0] * len(ratios))
    logprobs = (proximal + torch.log(torch.tensor(ratios))).requires_grad_()
    return LossInputs(
        logprobs, proximal, proximal - weights.log(), torch.tensor(advantages), **bounds
    )


def gradient(outputs, given):
    return torch.autograd.grad(outputs.loss.sum(), given.logprobs)[0].tolist()


def test_clipped_takes_the_worse_of_both_objectives():
    given = inputs([1.5, 0.5, 1.5, 0.5, 1.0], [1.0, 1.0, -1.0, -1.0, 2.0])
    outputs = clipped(given)
    assert outputs.loss.tolist() == pytest.approx([-1.2, -0.5, 1.5, 0.8, -2.0], abs=1e-6)
    assert outputs.metrics["clip_fraction"].tolist() == [1.0, 0.0, 0.0, 1.0, 0.0]
    assert gradient(outputs, given) == pytest.approx([0.0, -0.5, 1.5, 0.0, -2.0], abs=1e-6)


def test_clip_bounds_are_two_numbers():
    given = inputs([2.0, 0.5], [1.0, -1.0], clip_low=0.1, clip_high=0.3)
    assert clipped(given).loss.tolist() == pytest.approx([-1.3, 0.9], abs=1e-6)


def test_on_policy_gradient_is_minus_the_advantage():
    given = inputs([1.0, 1.0], [0.7, -0.3])
    assert gradient(clipped(given), given) == pytest.approx([-0.7, 0.3], abs=1e-6)


def test_decoupled_weighs_by_the_behaviour_and_drops_past_the_cap():
    given = inputs([1.5, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.5, 4.9, 5.1, 1.0])
    outputs = decoupled(given)
    assert outputs.loss.tolist() == pytest.approx([-0.6, -4.9, 0.0, -1.0], abs=1e-5)
    assert outputs.metrics["behaviour_dropped"].tolist() == [0.0, 0.0, 1.0, 0.0]
    assert gradient(outputs, given) == pytest.approx([0.0, -4.9, 0.0, -1.0], abs=1e-5)


def test_k3_is_zero_on_the_reference_and_positive_beside_it():
    logprobs = torch.tensor([-1.0, -1.0, -1.0], requires_grad=True)
    divergence = k3(logprobs, torch.tensor([-1.0, 0.0, -2.0]))
    expected = [0.0, math.e - 2, math.exp(-1)]
    assert divergence.tolist() == pytest.approx(expected, abs=1e-6)
    divergence.sum().backward()
    assert logprobs.grad.tolist() == pytest.approx([0.0, 1 - math.e, 1 - math.exp(-1)], abs=1e-6)


def test_aggregations_weigh_sequences_of_one_and_three_tokens():
    lengths = np.array([1, 3])
    weights = {name: rule(lengths, 8).tolist() for name, rule in AGGREGATIONS.items()}
    assert weights == {
        "token_mean": [0.25, 0.25],
        "sequence_mean": [0.5, 1 / 6],
        "dr_grpo": [0.0625, 0.0625],
    }


def test_dr_grpo_needs_a_length_limit():
    with pytest.raises(ValueError, match="length limit"):
        AGGREGATIONS["dr_grpo"](np.array([1]), 0)

"""Policy losses against literal values and a plain-Python computation, and their gradients."""

import math
import random

import numpy as np
import pytest
import torch

from agents.algorithm.losses import (
    AGGREGATIONS,
    LOSSES,
    LossInputs,
    cispo,
    clipped,
    decoupled,
    gspo,
    k3,
    tis,
)


def inputs(ratios, advantages, behaviour_weights=None, sequence=None, **bounds):
    """Log-probabilities whose pi / pi_prox and pi_prox / pi_behave are as given; pi_prox is 1/2."""
    proximal = torch.full((len(ratios),), math.log(0.5))
    weights = torch.tensor(behaviour_weights or [1.0] * len(ratios))
    logprobs = (proximal + torch.log(torch.tensor(ratios))).requires_grad_()
    owner = torch.tensor(sequence or [0] * len(ratios))
    return LossInputs(
        logprobs, proximal, proximal - weights.log(), torch.tensor(advantages), owner, **bounds
    )


def gradient(outputs, given, weights=None):
    weighed = outputs.loss * (1.0 if weights is None else torch.tensor(weights))
    return torch.autograd.grad(weighed.sum(), given.logprobs)[0].tolist()


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


def test_tis_truncates_the_weight_where_decoupled_drops_the_token():
    given = inputs([1.5, 1.0, 0.9], [1.0, 1.0, -1.0], [0.5, 7.0, 2.0], behaviour_cap=2.5)
    outputs = tis(given)
    assert outputs.loss.tolist() == pytest.approx([-0.6, -2.5, 1.8], abs=1e-5)
    assert outputs.metrics["behaviour_truncated"].tolist() == [0.0, 1.0, 0.0]
    assert outputs.metrics["behaviour_weight"].tolist() == pytest.approx([0.5, 2.5, 2.0], abs=1e-5)
    assert gradient(outputs, given) == pytest.approx([0.0, -2.5, 1.8], abs=1e-5)


def test_cispo_clips_the_weight_and_keeps_every_gradient():
    given = inputs([3.0, 0.1, 3.0], [1.0, 2.0, -1.0], ratio_cap=2.0)
    outputs = cispo(given)
    logprobs = [math.log(1.5), math.log(0.05), math.log(1.5)]
    expected = [-2.0 * logprobs[0], -0.2 * logprobs[1], 2.0 * logprobs[2]]
    assert outputs.loss.tolist() == pytest.approx(expected, abs=1e-6)
    assert gradient(outputs, given) == pytest.approx([-2.0, -0.2, 2.0], abs=1e-6)
    assert outputs.metrics["clip_fraction"].tolist() == [1.0, 0.0, 1.0]


def test_gspo_has_one_ratio_a_sequence_the_geometric_mean():
    # sequence 7: ratios 2 and 8, so s = 4; sequence 3: 0.5 alone
    given = inputs([2.0, 0.5, 8.0], [1.0, 1.0, 1.0], sequence=[7, 3, 7], clip_high=9.0)
    outputs = gspo(given)
    assert outputs.metrics["ratio"].tolist() == pytest.approx([4.0, 0.5, 4.0], abs=1e-5)
    assert outputs.loss.tolist() == pytest.approx([-4.0, -0.5, -4.0], abs=1e-5)


def test_gspo_clips_whole_sequences():
    given = inputs([2.0, 0.5, 8.0], [1.0, 1.0, 1.0], sequence=[7, 3, 7], clip_high=0.2)
    outputs = gspo(given)
    assert outputs.loss.tolist() == pytest.approx([-1.2, -0.5, -1.2], abs=1e-6)
    assert outputs.metrics["clip_fraction"].tolist() == [1.0, 0.0, 1.0]
    assert gradient(outputs, given) == pytest.approx([0.0, -0.5, 0.0], abs=1e-6)


def plain_gspo(logprobs, proximal, advantages, sequence, low, high):
    """Minus the mean over sequences of min(s A, clip(s) A), one advantage a sequence."""
    total = 0.0
    for owner in sorted(set(sequence)):
        places = [i for i, one in enumerate(sequence) if one == owner]
        s = math.exp(sum(logprobs[i] - proximal[i] for i in places) / len(places))
        a = advantages[places[0]]
        total += min(s * a, min(max(s, 1 - low), 1 + high) * a)
    return -total / len(set(sequence))


def test_gspo_with_sequence_mean_is_the_published_objective_and_gradient():
    sequence = [0, 0, 0, 1, 2, 2]
    advantages = [{0: 1.5, 1: -0.5, 2: 0.7}[owner] for owner in sequence]
    given = inputs([1.1, 0.8, 1.3, 0.9, 1.9, 1.4], advantages, sequence=sequence)
    weights = AGGREGATIONS["sequence_mean"](np.array([3, 1, 2]), 0)[sequence].tolist()
    outputs = gspo(given)
    logprobs, proximal = given.logprobs.tolist(), given.proximal.tolist()
    value = sum(w * x for w, x in zip(weights, outputs.loss.tolist(), strict=True))
    assert value == pytest.approx(plain_gspo(logprobs, proximal, advantages, sequence, 0.2, 0.2))
    step = 1e-6
    for i, slope in enumerate(gradient(outputs, given, weights)):
        sides = []
        for sign in (1, -1):
            moved = [x + sign * step * (j == i) for j, x in enumerate(logprobs)]
            sides.append(plain_gspo(moved, proximal, advantages, sequence, 0.2, 0.2))
        assert slope == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-5)


def plain_token(name, logprob, proximal, behaviour, advantage, low, high, behaviour_cap, ratio_cap):
    """Loss of one token and its derivative by its log-probability, in plain Python."""
    ratio, weight = math.exp(logprob - proximal), math.exp(proximal - behaviour)
    if name == "likelihood":
        return -advantage * logprob, -advantage
    if name == "cispo":
        kept = min(ratio, ratio_cap)
        return -kept * advantage * logprob, -kept * advantage
    edge = 1 + high if advantage > 0 else 1 - low
    clips = ratio > edge if advantage > 0 else ratio < edge
    value, slope = (-edge * advantage, 0.0) if clips else (-ratio * advantage,) * 2
    if name == "decoupled":
        weight = weight if weight <= behaviour_cap else 0.0
    elif name == "tis":
        weight = min(weight, behaviour_cap)
    else:
        weight = 1.0
    return value * weight, slope * weight


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"gspo"}))
@pytest.mark.parametrize("bounds", [(0.2, 0.2, 5.0, 5.0), (0.1, 0.28, 1.3, 1.2)])
def test_losses_equal_a_plain_computation_on_many_tokens(name, bounds):
    draw = random.Random(1)
    rows = [
        [draw.uniform(-3, 0), draw.uniform(-3, 0), draw.uniform(-3, 0), draw.choice([-1, 1]) * 1.7]
        for _ in range(200)
    ]
    columns = [torch.tensor(column) for column in zip(*rows, strict=True)]
    low, high, behaviour_cap, ratio_cap = bounds
    given = LossInputs(
        columns[0].requires_grad_(), *columns[1:], torch.arange(200), clip_low=low, clip_high=high,
        behaviour_cap=behaviour_cap, ratio_cap=ratio_cap,
    )  # fmt: skip
    outputs = LOSSES[name](given)
    plain = [plain_token(name, *row, *bounds) for row in rows]
    assert outputs.loss.tolist() == pytest.approx([p[0] for p in plain], rel=1e-4, abs=1e-5)
    assert gradient(outputs, given) == pytest.approx([p[1] for p in plain], rel=1e-4, abs=1e-5)


def test_losses_with_a_weight_of_their_own_ignore_the_sampler_elsewhere():
    for name in LOSSES:
        plain = LOSSES[name](inputs([1.1], [1.0], [1.0])).loss.item()
        other = LOSSES[name](inputs([1.1], [1.0], [0.5])).loss.item()
        expected = 0.5 * plain if LOSSES[name].own_proximal else plain
        assert other == pytest.approx(expected)


def test_k3_is_zero_on_the_reference_and_positive_beside_it():
    logprobs = torch.tensor([-1.0, -1.0, -1.0], requires_grad=True)
    divergence = k3(logprobs, torch.tensor([-1.0, 0.0, -2.0]))
    expected = [0.0, math.e - 2, math.exp(-1)]
    assert divergence.tolist() == pytest.approx(expected, abs=1e-6)
    divergence.sum().backward()
    assert logprobs.grad.tolist() == pytest.approx([0.0, 1 - math.e, 1 - math.exp(-1)], abs=1e-6)


def test_k3_of_a_token_far_from_the_reference_is_finite_and_pulls_back():
    logprobs = torch.tensor([-10.0, -12.0, -200.0], requires_grad=True)
    divergence = k3(logprobs, torch.zeros(3))
    top = math.exp(10)
    expected = [top - 11, top * 3 - 13, top * 191 - 201]
    assert divergence.tolist() == pytest.approx(expected, rel=1e-5)
    divergence.sum().backward()
    assert logprobs.grad.tolist() == pytest.approx([1 - top] * 3, rel=1e-5)


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


@pytest.mark.parametrize("name", LOSSES)
def test_a_micro_batch_without_trained_tokens_has_no_loss(name):
    empty = torch.zeros(0)
    outputs = LOSSES[name](LossInputs(empty, empty, empty, empty, empty.long()))
    assert outputs.loss.shape == (0,)

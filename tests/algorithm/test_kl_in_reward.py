"""`kl_in=reward` against the exact gradient of the divergence, over a vocabulary of three."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from agents.algorithm.config import PARAGRPOConfig
from agents.algorithm.credit import credit
from agents.algorithm.losses import k1, k3
from agents.base import Trajectory

VOCABULARY, LENGTH, GROUP = 3, 2, 2
RESPONSES = list(product(range(VOCABULARY), repeat=LENGTH))
WEIGHT = 0.3


def policies(distance):
    """Logits (LENGTH, VOCABULARY) of the policy, which carries a gradient, and of the reference."""
    rng = torch.Generator().manual_seed(1)
    reference = torch.randn(LENGTH, VOCABULARY, generator=rng, dtype=torch.float64)
    moved = reference + distance * torch.randn(LENGTH, VOCABULARY, generator=rng).double()
    return moved.requires_grad_(), reference


def tokens_of(logits, response):
    """Log-probability of each token of a response."""
    return logits.log_softmax(-1)[torch.arange(LENGTH), torch.tensor(response)]


def exact(logits, reference):
    """The gradient of KL(pi || pi_ref), by the sum over all responses."""
    total = sum(
        tokens_of(logits, one).sum().exp()
        * (tokens_of(logits, one).sum() - tokens_of(reference, one).sum())
        for one in RESPONSES
    )
    return torch.autograd.grad(total, logits)[0]


def rollout(response, reward):
    zeros, every = np.zeros(LENGTH, np.float32), np.ones(LENGTH, bool)
    one = Trajectory(np.arange(3), np.array(response), every, zeros, np.zeros(LENGTH, np.int8))
    terms = {"answer": reward}
    return SimpleNamespace(task_id="t", reward=reward, terms=terms, executed=0, trajectories=(one,))


def expected(logits, reference, estimate, rewards=lambda response: 0.0, **settings):
    """Minus the mean of sum A grad log pi over every group of two that can be drawn."""
    method = PARAGRPOConfig(
        kl_in="reward", kl_coefficient=WEIGHT, group_size=GROUP, batch_normalise=False, **settings
    )
    total = torch.zeros(())
    for group in product(RESPONSES, repeat=GROUP):
        columns = [tokens_of(logits, one) for one in group]
        likely = torch.stack([column.sum() for column in columns]).sum().exp().item()
        divergence = [
            float(estimate(column.detach(), tokens_of(reference, one)).sum())
            for column, one in zip(columns, group, strict=True)
        ]
        rollouts = [rollout(one, rewards(one)) for one in group]
        batch = credit([rollouts], method, {"answer": 1.0}, np.array(divergence)).batch
        for column, advantages in zip(columns, batch.advantages, strict=True):
            total = total - likely * (column * torch.from_numpy(advantages)).sum() / GROUP
    return torch.autograd.grad(total, logits)[0]


@pytest.mark.parametrize("distance", [0.05, 1.0])
def test_the_expected_gradient_is_that_of_the_divergence(distance):
    logits, reference = policies(distance)
    found = expected(logits, reference, k1)
    torch.testing.assert_close(found, WEIGHT * exact(logits, reference), rtol=1e-5, atol=1e-8)


def test_k3_in_its_place_would_not_be():
    logits, reference = policies(0.05)
    wrong, right = expected(logits, reference, k3), exact(logits, reference)
    assert wrong.norm() < 0.05 * (WEIGHT * right).norm(), "near the reference it vanishes"


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_spread_of_the_rewards_leaves_the_divergence_its_weight(scale):
    def rewards(response):
        return scale * response[0]

    logits, reference = policies(1.0)
    both = expected(logits, reference, k1, rewards)
    without = expected(logits, reference, lambda own, other: torch.zeros(1), rewards)
    wanted = WEIGHT * exact(logits, reference)
    torch.testing.assert_close(both - without, wanted, rtol=1e-4, atol=1e-6)


def test_the_batchs_normalisation_leaves_it_its_weight():
    groups = [[rollout((0, 0), 0.0), rollout((1, 1), 9.0)]]
    settings = PARAGRPOConfig(kl_in="reward", kl_coefficient=WEIGHT, batch_normalise=True)
    batch = credit(groups, settings, {"answer": 1.0}, np.array([2.0, -1.0])).batch
    assert [a.tolist() for a in batch.advantages] == pytest.approx(
        [pytest.approx([-1 - 0.9] * 2), pytest.approx([1 + 0.9] * 2)]
    )

"""The gradient of each reward term on a few groups, and how these gradients lie to each other.

Beside the update: an observer of the run (`train/lab/diagnose/observer.py`) takes them on a batch
before it is trained on, and `paravt diagnose` on groups that a checkpoint has just played
(`train/lab/diagnose/probe.py`). Each term is credited as the method would credit a reward of that
term alone; the objective is -A log pi with the run's aggregation, which is linear in A, so that the
gradient of the decomposed advantage is the weighted sum of the terms'. Neither the weights nor any
generator is touched.

Command: `pytest tests/lab/test_diagnostics.py`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch

from agents.algorithm.advantages import FORMAT_TERM, Scores
from agents.algorithm.config import PARAGRPOConfig
from agents.algorithm.credit import Batch, credit
from agents.algorithm.losses import loss_named
from train.lab.diagnose.advice import CHOICES, Cosine, advise
from train.lab.diagnose.terms import PREFIX, Pair, measure_terms, term_names
from train.learner.learner import Learner
from train.learner.meter import Meter
from train.packing.samples import Sample
from train.rollout.play import Rollout
from train.rollout.selection import Group

Gradient = list[torch.Tensor | None]
"""One tensor a trained parameter; None where it is 0."""


@dataclass(frozen=True)
class Gradients:
    """Gradients on a few groups of a batch.

    Attributes:
        cosines: Between terms that have a gradient.
        norms: Of each term's gradient.
        product: g_a . g_b of the trained advantages on two halves of the groups: its expectation is
            ||E g||^2.
        square: ||(g_a + g_b) / 2||^2, which holds the noise too.
    """

    cosines: dict[Pair, Cosine]
    norms: dict[str, float]
    product: float
    square: float

    def metrics(self) -> dict[str, float]:
        """Everything under its name in the log."""
        return {
            **{f"{PREFIX}cosine/{a}~{b}": one.whole for (a, b), one in self.cosines.items()},
            **{f"{PREFIX}grad_norm/{name}": value for name, value in self.norms.items()},
            f"{PREFIX}grad_product": self.product,
            f"{PREFIX}grad_square": self.square,
        }


def scores_of(groups: Sequence[Group], weights: Mapping[str, float]) -> Scores | None:
    """The rewards and terms of all scored rollouts; None where there is none."""
    members = [(g, one) for g, group in enumerate(groups) for one in group if one.trajectories]
    if not members:
        return None
    return Scores(
        rewards=np.array([one.reward for _, one in members]),
        groups=np.array([g for g, _ in members]),
        terms={name: np.array([one.terms[name] for _, one in members]) for name in weights},
        weights=weights,
    )


def measure_batch(
    learner: Learner,
    config: PARAGRPOConfig,
    weights: Mapping[str, float],
    groups: Sequence[Group],
    batch: Batch,
    chosen: Sequence[int],
) -> dict[str, float]:
    """The metrics of one step: terms of all groups, gradients of the `chosen` ones, the advice.

    Where several terms vary and no cosine of theirs was measured there is no advice: it would look
    like one that knows them.

    Args:
        learner: Of the run, before it updates.
        config: The method.
        weights: Of every reward term.
        groups: What the step trains on.
        batch: The same, credited.
        chosen: Places of the groups whose gradients are taken; empty for none.
    """
    scores = scores_of(groups, weights)
    if scores is None:
        return {}
    terms = measure_terms(scores)
    found = measure_gradients(learner, config, weights, groups, batch, chosen) if chosen else None
    metrics = terms.metrics() | (found.metrics() if found else {})
    cosines = found.cosines if found else {}
    if len(terms.scales) > 1 and not cosines:
        return metrics
    advice = advise(terms.scales, cosines)
    return metrics | {f"{PREFIX}advice": float(CHOICES.index(advice.choice))}


def measure_gradients(
    learner: Learner,
    config: PARAGRPOConfig,
    weights: Mapping[str, float],
    groups: Sequence[Group],
    batch: Batch,
    chosen: Sequence[int],
) -> Gradients:
    """Gradients of every term and of the trained advantages, each on two halves of `chosen`.

    Holds 2 (terms + 1) copies of the gradient in memory. One process only.

    Args:
        learner: Whose weights, aggregation and micro-batches are used; its gradients are cleared.
        config: Says how a term is credited.
        weights: Of every reward term.
        groups: Groups of rollouts.
        batch: The same groups with the advantages that are trained.
        chosen: Places in `groups`, at least 2.

    Raises:
        ValueError: Fewer than 2 groups are chosen, or there are several processes.
    """
    if len(chosen) < 2:
        raise ValueError("two halves need at least 2 groups")
    if learner.processes.world.size > 1:
        raise ValueError("gradients of single terms need a run of one process")
    parts = [set(part.tolist()) for part in np.array_split(np.asarray(chosen), 2)]
    measured = copy.copy(learner)  # the same weights, another loss: -A log pi without a divergence
    measured.loss = loss_named("likelihood")
    measured.method = replace(learner.method, kl_coefficient=0.0)

    def halves(credited: Batch) -> list[Gradient]:
        return [_gradient(measured, _samples(credited, part)) for part in parts]

    by_term = {name: halves(_alone(config, groups, name)) for name in term_names(weights)}
    by_term = {name: pair for name, pair in by_term.items() if any(map(_any, pair))}
    trained = halves(batch)
    cosines = {
        (a, b): Cosine(
            cosine(_half_sum(by_term[a]), _half_sum(by_term[b])),
            (cosine(by_term[a][0], by_term[b][0]), cosine(by_term[a][1], by_term[b][1])),
        )
        for a, b in combinations(by_term, 2)
    }
    whole = {name: _half_sum(pair) for name, pair in by_term.items()}
    return Gradients(
        cosines={pair: one for pair, one in cosines.items() if not math.isnan(one.whole)},
        norms={name: math.sqrt(dot(one, one)) for name, one in whole.items()},
        product=dot(*trained),
        square=dot(_half_sum(trained), _half_sum(trained)),
    )


def credited(
    groups: Sequence[Group], config: PARAGRPOConfig, weights: Mapping[str, float]
) -> Batch:
    """The groups as the method credits them, without a divergence from a reference."""
    return credit(groups, config, weights).batch


def dot(left: Gradient, right: Gradient) -> float:
    """The inner product over all parameters."""
    both = [(a, b) for a, b in zip(left, right, strict=True) if a is not None and b is not None]
    return math.fsum(float((a.double() * b.double()).sum()) for a, b in both)


def cosine(left: Gradient, right: Gradient) -> float:
    """The cosine of two gradients, NaN where one of them is 0."""
    square = dot(left, left) * dot(right, right)
    return dot(left, right) / math.sqrt(square) if square else math.nan


def _alone(config: PARAGRPOConfig, groups: Sequence[Group], name: str) -> Batch:
    """Credit as if the reward were one term: standardised in the group, on the tokens it trains."""
    where = config.credit if name == FORMAT_TERM else "trajectory"
    alone = replace(
        config, advantage="grpo", batch_normalise=False, kl_coefficient=0.0, credit=where
    )
    only = [[_of_term(one, name) for one in group] for group in groups]
    return credited(only, alone, {name: 1.0})


def _of_term(rollout: Rollout, name: str) -> Rollout:
    if not rollout.trajectories:
        return rollout
    return replace(rollout, reward=rollout.terms[name], terms={name: rollout.terms[name]})


def _samples(batch: Batch, groups: Iterable[int]) -> list[Sample]:
    """The samples of some groups that have a trained token."""
    credited = zip(batch.trajectories, batch.advantages, batch.groups, strict=True)
    chosen = set(groups)
    samples = [Sample(one, advantages) for one, advantages, group in credited if group in chosen]
    return [sample for sample in samples if sample.length]


def _gradient(learner: Learner, samples: Sequence[Sample]) -> Gradient:
    """The gradient of the loss of `samples`; the learner's own is cleared before and after."""
    learner.optimizer.zero_grad(set_to_none=True)
    if samples:
        learner.accumulate(samples, Meter())
    found: Gradient = [p.grad for p in learner.parameters]
    learner.optimizer.zero_grad(set_to_none=True)
    return found


def _half_sum(pair: Sequence[Gradient]) -> Gradient:
    """(g_a + g_b) / 2."""
    return [
        None if a is None and b is None else sum(g for g in (a, b) if g is not None) / 2
        for a, b in zip(*pair, strict=True)
    ]


def _any(gradient: Gradient) -> bool:
    return any(part is not None and bool(part.any()) for part in gradient)


def choose_groups(count: int, wanted: int, seed: Sequence[int]) -> list[int]:
    """Places of `wanted` of `count` groups, drawn without touching the run's generators.

    >>> choose_groups(2, 4, [0, 1]) in ([0, 1], [1, 0]), choose_groups(1, 4, [0, 1])
    (True, [])
    """
    drawn = np.random.default_rng(list(seed)).permutation(count)[:wanted].tolist()
    return drawn if len(drawn) > 1 else []

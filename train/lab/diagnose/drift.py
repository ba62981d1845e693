r"""Which behaviours the first updates will favour: predicted from how often each occurs and pays.

Between groups that were played and the report of `paravt diagnose`. A policy that does one of a few
things (`train/rollout/behaviours.py`) with shares p_b is pushed by a policy gradient along dp_b =
p_b (E[A | b] - sum_c p_c E[A | c]), and group normalisation makes that sum 0. So the sign of a
share's drift is that of the expected advantage of its behaviour.

E[A | b] is worked out from the shares, mean rewards mu_b and their standard deviations s_b: one
member of a group of G does b, the others are a multinomial draw, and for each of these compositions
n, A = (mu_b - m) / sqrt(v) with m = sum n_c mu_c / G and the expected variance of the group, v =
sum n_c (mu_c - m)^2 / G + (1 - 1 / G) sum n_c s_c^2 / G. So a small difference that most groups
hold weighs more than a large one that few do. What that leaves out: questions of a group differ in
difficulty from those of another, and rewards are no Gaussians. Derived here, tested against
sampling. Command: `paravt diagnose RUN`; tests: `pytest tests/lab/test_drift.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agents.algorithm.advantages import FORMAT_TERM, ZERO_VARIANCE, Credit
from train.rollout.behaviours import BEHAVIOURS, behaviour
from train.rollout.behaviours import PREFIX as SHARE
from train.rollout.play import Rollout

PREFIX = "diagnostics/drift/"
FIRST = 10
"""Updates after the first step whose mean share is held against a prediction: most recipes spend
five of them on the warm-up of the learning rate."""
RARE = 1 / 64
"""Behaviours below this share are predicted, but no claim is made of them."""


@dataclass(frozen=True)
class Row:
    """One behaviour at one frame budget.

    Attributes:
        name: One of `BEHAVIOURS`.
        budget: K, the overview frames; 0 for all budgets together.
        count: Rollouts.
        share: Of the rollouts at this budget.
        compliance: f.
        calls: A rollout.
        accuracy: Mean value of the answers.
        reward: Mean of the rewards.
        std: Their standard deviation.
        form: Mean of the format term; NaN where there is none.
        form_std: Its standard deviation.
        advantage: E[A | b], with the weight that the format term has on tags.
    """

    name: str
    budget: int
    count: int
    share: float
    compliance: float
    calls: float
    accuracy: float
    reward: float
    std: float
    form: float
    form_std: float
    advantage: float

    @property
    def drift(self) -> float:
        """p_b E[A | b]: how the share is pushed, up to the learning rate."""
        return self.share * self.advantage


def compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to share `total` members among `parts` behaviours.

    >>> list(compositions(2, 2))
    [(0, 2), (1, 1), (2, 0)]
    """
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in compositions(total - first, parts - 1):
            yield (first, *rest)


def expected_advantages(
    shares_B: Sequence[float],
    means_B: Sequence[float],
    stds_B: Sequence[float],
    group_size: int,
) -> np.ndarray:
    """E[A | b] of each behaviour (B,) under group normalisation; see the module's formula.

    A behaviour that does not occur gets the advantage that a first one would have.

    Args:
        shares_B: p_b, which sum to 1.
        means_B: Mean reward of each.
        stds_B: Standard deviation of its rewards.
        group_size: G, at least 2.

    Raises:
        ValueError: Shares that do not sum to 1, or a group of one.

    >>> expected_advantages([0.5, 0.5], [1.0, 0.0], [0.0, 0.0], 2).tolist()
    [0.5, -0.5]
    """
    p_B, mu_B, var_B = (np.asarray(one, dtype=np.float64) for one in (shares_B, means_B, stds_B))
    var_B = var_B**2
    if abs(p_B.sum() - 1) > 1e-6 or group_size < 2:
        raise ValueError(f"shares {p_B.tolist()} must sum to 1, and {group_size} be at least 2")
    found_B = np.zeros(len(p_B))
    for others in compositions(group_size - 1, len(p_B)):
        others_B = np.array(others)
        ways = math.factorial(group_size - 1) / math.prod(math.factorial(n) for n in others)
        chance = ways * float(np.prod(p_B**others_B))
        for b in range(len(p_B)) if chance else ():
            n_B = others_B.copy()
            n_B[b] += 1
            mean = float(n_B @ mu_B) / group_size
            spread = float(n_B @ (mu_B - mean) ** 2) / group_size
            within = (1 - 1 / group_size) * float(n_B @ var_B) / group_size
            std = math.sqrt(spread + within)
            if std > ZERO_VARIANCE:
                found_B[b] += chance * (mu_B[b] - mean) / std
    return found_B


def drift_table(
    rollouts: Sequence[Rollout],
    group_size: int,
    weights: Mapping[str, float],
    credit: Credit = "trajectory",
) -> list[Row]:
    """Every behaviour that occurs, at each frame budget and (budget 0) at all together.

    The advantage at all budgets is the mean over the budgets' own, each as often as it was played:
    a group has one budget. With `credit="token"` the format term is standardised on its own and
    has its weight, as on the tags that decide between two behaviours.

    Args:
        rollouts: Played by one policy; those without a score are left out.
        group_size: G.
        weights: Of every reward term.
        credit: Of the method.
    """
    known = [(behaviour(one), one) for one in rollouts if not one.error]
    known = [(name, one) for name, one in known if name]
    budgets = sorted({one.frame_budget for _, one in known})
    rows, pushed = [], dict.fromkeys(BEHAVIOURS, 0.0)
    for budget in budgets:
        here = [(name, one) for name, one in known if one.frame_budget == budget]
        parts = {b: [one for name, one in here if name == b] for b in BEHAVIOURS}
        parts = {b: some for b, some in parts.items() if some}
        advantages = _advantages(parts, group_size, weights, credit)
        for name, some in parts.items():
            rows.append(_row(name, budget, some, len(here), advantages[name]))
            pushed[name] += len(some) / len(known) * advantages[name]
    if len(budgets) > 1:
        for name in BEHAVIOURS:
            some = [one for own, one in known if own == name]
            if some:
                advantage = pushed[name] * len(known) / len(some)
                rows.append(_row(name, 0, some, len(known), advantage))
    return rows


def _advantages(
    parts: Mapping[str, Sequence[Rollout]],
    group_size: int,
    weights: Mapping[str, float],
    credit: Credit,
) -> dict[str, float]:
    total = sum(map(len, parts.values()))
    shares = [len(some) / total for some in parts.values()]

    def of(values: Mapping[str, list[float]]) -> np.ndarray:
        means = [float(np.mean(some)) for some in values.values()]
        stds = [float(np.std(some)) for some in values.values()]
        return expected_advantages(shares, means, stds, group_size)

    weight = weights.get(FORMAT_TERM, 0.0) if credit == "token" else 0.0
    rest = {b: [r.reward - weight * _form(r) for r in some] for b, some in parts.items()}
    found_B = of(rest)
    if weight:
        found_B = found_B + weight * of({b: [_form(r) for r in s] for b, s in parts.items()})
    return dict(zip(parts, found_B.tolist(), strict=True))


def _form(rollout: Rollout) -> float:
    return rollout.terms.get(FORMAT_TERM, 0.0)


def _row(name: str, budget: int, some: Sequence[Rollout], total: int, advantage: float) -> Row:
    rewards, forms = [one.reward for one in some], [one.terms.get(FORMAT_TERM) for one in some]
    forms_N = np.array([math.nan if form is None else form for form in forms])
    return Row(
        name=name,
        budget=budget,
        count=len(some),
        share=len(some) / total,
        compliance=float(np.mean([one.compliant for one in some])),
        calls=float(np.mean([one.calls for one in some])),
        accuracy=float(np.mean([one.correct for one in some])),
        reward=float(np.mean(rewards)),
        std=float(np.std(rewards)),
        form=float(forms_N.mean()),
        form_std=float(forms_N.std()),
        advantage=advantage,
    )


def describe_drift(rows: Sequence[Row]) -> list[str]:
    """The table and the predicted signs, as lines of text."""
    if not rows:
        return ["no drift: no turn that could be scored was written"]
    heads = f"{'share':>6}{'f':>6}{'calls':>7}{'acc.':>6}{'reward':>8}{'std':>6}{'E[A]':>7}"
    lines = [
        "\nfirst turns, and where the next updates push them",
        f"{'behaviour':20}{'K':>4}{heads}",
    ]
    for row in rows:
        said = "" if row.share >= RARE else "  too rare to say"
        lines.append(
            f"{row.name:20}{row.budget or 'all':>4}{row.share:6.2f}{row.compliance:6.2f}"
            f"{row.calls:7.2f}{row.accuracy:6.2f}{row.reward:8.2f}{row.std:6.2f}"
            f"{row.advantage:+7.2f}{said}"
        )
    overall = [row for row in rows if not row.budget] or rows
    ways = {
        name: [r.name for r in overall if (r.advantage > 0) == up and r.share >= RARE]
        for name, up in (("up", True), ("down", False))
    }
    lines.append("; ".join(f"{way}: {', '.join(names) or 'none'}" for way, names in ways.items()))
    return lines


@dataclass(frozen=True)
class Moved:
    """A prediction beside what training did.

    Attributes:
        name: The behaviour.
        predicted: p_b E[A | b] at the start.
        before: Its share in the first step.
        after: Its mean share over the steps that followed.
        noise: Two standard errors of the difference of two shares that are drawn from one policy,
            2 sqrt(p (1 - p) (1 / n + 1 / m)) with the pooled share p and the n and m rollouts
            behind `before` and `after`. A lower bound: rollouts of one question are alike.
    """

    name: str
    predicted: float
    before: float
    after: float
    noise: float = 0.0

    @property
    def right(self) -> bool:
        """Whether the share moved in the predicted direction."""
        return (self.after - self.before) * self.predicted > 0

    @property
    def clear(self) -> bool:
        """Whether the share moved by more than sampling alone would move it."""
        return abs(self.after - self.before) > self.noise


def overall(rows: Sequence[Row]) -> list[Row]:
    """The rows of all budgets together, or of the only one."""
    return [row for row in rows if not row.budget] or list(rows)


def drift_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """The predicted drift of each behaviour under its name in the log."""
    return {f"{PREFIX}{row.name}": row.drift for row in overall(rows)}


def moved(steps: Sequence[Mapping[str, float]], first: int = FIRST) -> list[Moved]:
    """What the first logged step predicted beside what the `first` steps after it did.

    Behaviours rarer than `RARE` at the start, about which nothing is claimed, are left out, and so
    is everything where the first step predicted nothing (`diagnostics.every`).

    Args:
        steps: The log of a run, from its first step.
        first: Steps whose mean share is compared with that of the first one.
    """
    found = []
    for name in BEHAVIOURS:
        key = f"{SHARE}{name}"
        seen = [step for step in steps[: first + 1] if step.get(key) is not None]
        predicted = steps[0].get(f"{PREFIX}{name}") if steps else None
        if predicted is not None and len(seen) > 1 and seen[0][key] >= RARE:
            before, after = seen[0][key], float(np.mean([step[key] for step in seen[1:]]))
            found.append(Moved(name, predicted, before, after, _noise(seen, before, after)))
    return found


def _noise(seen: Sequence[Mapping[str, float]], before: float, after: float) -> float:
    first, *rest = (step.get("rollouts", 0.0) for step in seen)
    if not first or not sum(rest):
        return 0.0
    pooled = (first * before + sum(rest) * after) / (first + sum(rest))
    return 2 * math.sqrt(pooled * (1 - pooled) * (1 / first + 1 / sum(rest)))


def verdicts(found: Sequence[Moved]) -> str:
    """How many predicted signs came true, among the clear moves and among all, as a phrase."""
    clear = [one for one in found if one.clear]
    return (
        f"{sum(one.right for one in clear)} of {len(clear)} clear moves right, "
        f"{sum(one.right for one in found)} of all {len(found)}"
    )


def describe_moved(found: Sequence[Moved]) -> list[str]:
    """Predictions of a run's start beside what its first updates did, as lines of text."""
    if not found:
        return []
    lines = [f"predicted at the start: {verdicts(found)}"]
    for one in found:
        verdict = "right" if one.right else "MISSED"
        lines.append(
            f"  {one.name:20}{one.predicted:+.3f}, share {one.before:.2f} -> {one.after:.2f}: "
            f"{verdict}{'' if one.clear else ' (within the noise of sampling)'}"
        )
    return lines

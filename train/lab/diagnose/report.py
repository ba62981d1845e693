"""The report of `paravt diagnose`: what was found, as text and as plain JSON.

Last stop of the diagnostics: writes down what the run logged and evaluations measured
(`train/lab/diagnose/records.py`) and what its checkpoint played (`train/lab/diagnose/probe.py`).
Tests: `pytest tests/lab/test_diagnostics.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from train.lab.diagnose.drift import describe_drift, describe_moved
from train.lab.diagnose.probe import Probe
from train.lab.diagnose.records import RECENT, Training, Transfer
from train.lab.diagnose.theory import Slope


def describe_probe(probe: Probe) -> list[str]:
    """The probe as lines of text."""
    terms, gradients = probe.terms, probe.gradients
    lines = [
        f"probe: {terms.rollouts} rollouts in {terms.groups} groups",
        f"{'term':16}{'weight':>8}{'share':>8}{'c/w':>8}{'flat':>8}{'|g|':>10}",
    ]
    for name in terms.flat_terms:
        lines.append(
            f"{name[:16]:16}{probe.weights[name]:8.2f}{_number(terms.shares, name)}"
            f"{_number(terms.scales, name)}{terms.flat_terms[name]:8.2f}"
            f"{gradients.norms.get(name, 0.0):10.3g}"
        )
    lines.append(f"{'all':40}{terms.flat:8.2f}")
    if terms.correlations or gradients.cosines:
        lines.append(f"{'pair':32}{'correlation':>12}{'cosine':>8}{'its halves':>16}")
    for pair in dict.fromkeys([*terms.correlations, *gradients.cosines]):
        found = gradients.cosines.get(pair)
        shown = (
            f"{found.whole:8.2f}{found.halves[0]:8.2f}{found.halves[1]:8.2f}"
            if found
            else "       -"
        )
        correlation = terms.correlations.get(pair)
        known = "-" if correlation is None else f"{correlation:.2f}"
        lines.append(f"{' ~ '.join(pair)[:32]:32}{known:>12}{shown}")
    lines += [
        f"distinct advantages a group: joint {terms.distinct_joint:.1f}, "
        f"decomposed {terms.distinct_decomposed:.1f}",
        f"A - A_dec = sum (c - w) A_k holds to {terms.identity_error:.1e}; mean |A - A_dec| is at "
        f"most {terms.gap:.2f}",
        f"||g||^2: {gradients.product:.3g} from two halves, {gradients.square:.3g} with its noise",
        f"advice (a rule of thumb): {probe.advice.choice}; {probe.advice.reason}",
        *describe_drift(probe.drift),
    ]
    return lines


def _number(values: Mapping[str, float], name: str) -> str:
    return f"{values[name]:8.2f}" if name in values else f"{'-':>8}"


def describe_training(training: Training) -> list[str]:
    """What the log says, as lines of text."""
    lines = [f"\ntraining: {training.steps} steps"]
    for name, value in (("accuracy", training.accuracy), ("groups all equal", training.flat)):
        if value is not None:
            lines[0] += f"; {name} {value:.3f} in the last {min(RECENT, training.steps)}"
    if training.slope:
        lines.append(f"slope of log mean ||g||^2 over log T, de-biased: {_slope(training.slope)}")
    else:
        lines.append("no de-biased slope: too few steps were measured (--diagnostics.every=1)")
    if training.biased_slope:
        lines.append(
            f"the same from the norm of the update, with its noise: {_slope(training.biased_slope)}"
        )
    if training.advised:
        counts = ", ".join(f"{choice} {n} times" for choice, n in training.advised.items())
        lines.append(f"advised during training: {counts}")
    lines += describe_moved(training.moved)
    return lines


def _slope(slope: Slope) -> str:
    left_out = f", {slope.left_out} not positive" if slope.left_out else ""
    return f"{slope.slope:.2f} ({slope.points} steps{left_out}; SGD's rate is -0.5)"


def describe_bound(probe: Probe, training: Training) -> list[str]:
    """The PAC-Bayes figure, as lines of text."""
    bound = probe.bound
    if isinstance(bound, str):
        return [f"\nno PAC-Bayes figure: {bound}"]
    says = "which says nothing: rewards lie in [0, 1]" if bound.figure >= 1 else "of noisy weights"
    lines = [
        f"\nPAC-Bayes figure: E_train - E_test <= {bound.figure:.3f}, {says}",
        f"  n = {bound.videos} videos, s = {bound.noise:g}, |theta - theta_0| = "
        f"{bound.distance:.3g}, KL = {bound.divergence:.4g}, delta = {bound.delta:g}",
    ]
    if training.accuracy is not None:
        lines.append(
            f"  E_train beside it: accuracy {training.accuracy:.3f} of the last logged steps"
        )
    return lines


def describe_transfers(transfers: Sequence[Transfer]) -> list[str]:
    """The measured transfer, as lines of text."""
    if not transfers:
        return ["\nno transfer: give evaluations of several task sets by --before and --after"]
    lines = ["\nmeasured transfer", f"{'':24}{'before':>8}{'after':>8}  difference, in points"]
    for place, one in enumerate(transfers):
        name = one.name if place else f"{one.name} (trained)"
        star = " *" if one.change.excludes_zero else ""
        lines.append(
            f"{name[:24]:24}{one.before.mean:8.3f}{one.after.mean:8.3f}"
            f"  {100 * one.change.mean:+.1f} [{100 * one.change.low:+.1f}, "
            f"{100 * one.change.high:+.1f}]{star}"
        )
    trained = transfers[0]
    for other in transfers[1:]:
        if trained.change.low > 0:
            kept = other.change.mean / trained.change.mean
            said = f"{100 * kept:.0f} % of the gain on {trained.name}"
        else:
            said = f"no share of a gain: {trained.name} did not gain beyond its interval"
        gap = trained.after.mean - other.after.mean
        lines.append(f"{other.name}: {said}; accuracy {100 * gap:+.1f} points apart after training")
    return lines


def as_plain(value: Any) -> Any:
    """Dataclasses as plain data; a pair of terms becomes `a~b`, NaN becomes null."""
    if hasattr(value, "__dataclass_fields__"):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {
            "~".join(key) if isinstance(key, tuple) else str(key): as_plain(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [as_plain(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value

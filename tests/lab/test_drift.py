"""Where the first updates push each behaviour: by hand, against sampling, and beside a log."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from agents.algorithm.advantages import Scores, grpo
from agents.algorithm.config import PARAGRPOConfig
from agents.algorithm.credit import Batch
from train.lab.diagnose.drift import (
    Moved,
    describe_drift,
    describe_moved,
    drift_metrics,
    drift_table,
    expected_advantages,
    moved,
)
from train.lab.diagnose.observer import DriftDiagnostics
from train.loop.observers import StepView

CALL = '<tool_call>{"name": "crop_video", "arguments": {"start": 1, "end": 2}}</tool_call>'
TEXTS = {
    "structured_calls": "<think>look</think>" + CALL,
    "structured_skips": "<think>look</think><answer>B</answer>",
    "native_calls": "look " + CALL,
    "native_skips": "B",
}


@dataclass
class Played:
    name: str
    reward: float
    form: float = 0.0
    frame_budget: int = 16
    error: str = ""
    terms: dict = field(default_factory=dict)

    def __post_init__(self):
        self.terms = {"answer": self.reward - self.form, "format_anchor": self.form}
        self.calls = int(self.name.endswith("calls"))
        self.turns = [{"completion": TEXTS[self.name], "crops": [{}] * self.calls}]
        self.compliant, self.correct = self.name.startswith("structured"), 0.25


WEIGHTS = {"answer": 1.0, "format_anchor": 1.0}


def test_two_behaviours_in_groups_of_two_by_hand():
    """Half of the partners do the other thing, and then the advantage is 1."""
    assert expected_advantages([0.5, 0.5], [3.0, 1.0], [0, 0], 2).tolist() == [0.5, -0.5]
    assert expected_advantages([0.25, 0.75], [0, 1], [0, 0], 2).tolist() == [-0.75, 0.25]
    assert expected_advantages([1.0, 0.0], [1, 2], [0, 0], 2).tolist() == [0.0, 1.0]


def test_noise_within_a_behaviour_shrinks_what_a_difference_is_worth():
    """Means 1 and 0 and deviations 1: v = 1/4 + (1 - 1/2) (1 + 1) / 2 = 3/4 in a mixed pair."""
    found = expected_advantages([0.5, 0.5], [1.0, 0.0], [1.0, 1.0], 2)
    np.testing.assert_allclose(found, [0.5 * 0.5 / math.sqrt(0.75), -0.25 / math.sqrt(0.75)])


def test_expected_advantages_are_those_of_sampled_groups():
    shares, means, stds, size = [0.5, 0.3, 0.2], [0.3, 0.9, 1.9], [0.0, 0.3, 0.2], 8
    rng = np.random.default_rng(0)
    groups = 20_000
    did = rng.choice(3, p=shares, size=groups * size)
    rewards = np.array(means)[did] + np.array(stds)[did] * rng.standard_normal(len(did))
    sampled = grpo(Scores(rewards, np.repeat(np.arange(groups), size)))
    found = expected_advantages(shares, means, stds, size)
    np.testing.assert_allclose(found, [sampled[did == b].mean() for b in range(3)], atol=0.02)
    assert abs(found @ shares) < 0.01, "pushes of a group cancel"


def test_a_common_small_gain_beats_a_rare_large_one():
    """Structured calls earn most, but half of the groups hold none of them."""
    rare = expected_advantages([0.5, 0.46, 0.04], [0.3, 0.9, 1.9], [0, 0, 0], 8)
    assert rare[1] > 0.5 and rare[0] < -0.5 < 0 < rare[2]
    drift = np.array([0.5, 0.46, 0.04]) * rare
    assert drift[1] > 2 * drift[2]


def test_shares_must_be_shares():
    with pytest.raises(ValueError, match="must sum to 1"):
        expected_advantages([0.5, 0.2], [0, 1], [0, 0], 2)
    with pytest.raises(ValueError, match="at least 2"):
        expected_advantages([1.0], [0], [0], 1)


def rollouts():
    native = [Played("native_calls", 0.25)] * 2
    return [*native, Played("structured_skips", 1.0, 0.75), Played("structured_skips", 1.5, 0.75)]


def test_a_table_holds_what_each_behaviour_did_and_earned():
    calls, skips = sorted(drift_table(rollouts(), 2, WEIGHTS), key=lambda row: row.name)
    assert (calls.name, calls.budget, calls.count, calls.share) == ("native_calls", 16, 2, 0.5)
    assert (calls.compliance, calls.calls, calls.accuracy) == (0.0, 1.0, 0.25)
    assert (calls.reward, calls.std, skips.reward, skips.std) == (0.25, 0.0, 1.25, 0.25)
    assert (skips.form, skips.form_std) == (0.75, 0.0)
    # a mixed pair: 0.5 from the mean, v = 1/4 + 1/2 * (0.25^2) / 2
    assert calls.advantage == pytest.approx(-0.25 / math.sqrt(0.25 + 0.0625 / 4))
    assert calls.drift == 0.5 * calls.advantage


def test_token_credit_standardises_the_form_on_its_own():
    rows = {row.name: row for row in drift_table(rollouts(), 2, WEIGHTS, "token")}
    # answers 0.25 beside 0.25 and 0.75: 0.125 from the mean; the form: 1 whenever it differs
    rest = -0.5 * 0.125 / math.sqrt(0.125**2 + 0.0625 / 4)
    assert rows["native_calls"].advantage == pytest.approx(rest - 0.5)


def test_budgets_have_their_own_groups():
    few = [Played("native_calls", 1.0, frame_budget=4), Played("structured_skips", 0.0)]
    rows = {(row.name, row.budget): row for row in drift_table([*rollouts(), few[0]], 2, WEIGHTS)}
    assert set(rows) == {
        *(("native_calls", k) for k in (0, 4, 16)),
        *(("structured_skips", k) for k in (0, 16)),
    }
    alone, together = rows["native_calls", 4], rows["native_calls", 0]
    assert alone.advantage == 0.0, "nothing beside it"
    assert together.advantage == pytest.approx(2 / 3 * rows["native_calls", 16].advantage)
    assert drift_metrics(list(rows.values()))["diagnostics/drift/native_calls"] == together.drift


def test_a_run_predicts_in_the_steps_that_are_asked_for():
    config = PARAGRPOConfig(group_size=2, credit="token")
    played = [rollouts()[:2], rollouts()[2:]]
    step = StepView(2, played, played, Batch([], [], []), WEIGHTS, learner=None)
    found = DriftDiagnostics(2, config).before_update(step)
    rows = drift_table([one for group in played for one in group], 2, WEIGHTS, "token")
    assert found == {f"diagnostics/drift/{row.name}": row.drift for row in rows}
    other = DriftDiagnostics(2, replace(config, credit="trajectory")).before_update(step)
    assert found != other and set(found) == set(other)
    for every in (0, 3):
        assert DriftDiagnostics(every, config).before_update(step) == {}
    assert DriftDiagnostics(2, config).after_update(step) == {}


def test_failed_rollouts_and_silent_agents_have_no_behaviour():
    failed = Played("native_calls", 0.0, error="no video")
    assert drift_table([failed], 2, WEIGHTS) == []
    assert describe_drift([]) == ["no drift: no turn that could be scored was written"]


def test_the_report_names_ways_and_rare_behaviours():
    many = rollouts() * 40 + [Played("structured_calls", 1.9)]
    text = describe_drift(drift_table(many, 2, WEIGHTS))
    assert text[-1] == "up: structured_skips; down: native_calls"
    assert sum(line.endswith("too rare to say") for line in text) == 1


def test_a_prediction_is_held_against_the_steps_that_followed():
    def step(skips, calls, **more):
        return {"behaviour/structured_skips": skips, "behaviour/native_calls": calls, **more}

    said = {"diagnostics/drift/structured_skips": 0.3, "diagnostics/drift/native_calls": 0.1}
    steps = [step(0.5, 0.5, **said), step(0.6, 0.4), step(0.8, 0.2), step(0.0, 1.0)]
    skips, calls = moved(steps, first=2)
    assert skips == Moved("structured_skips", 0.3, 0.5, 0.7) and skips.right
    assert not calls.right and calls.after == pytest.approx(0.3)
    assert describe_moved([skips, calls]) == [
        "predicted at the start: 1 of 2 clear moves right, 1 of all 2",
        "  structured_skips    +0.300, share 0.50 -> 0.70: right",
        "  native_calls        +0.100, share 0.50 -> 0.30: MISSED",
    ]
    assert moved([step(0.5, 0.5)] * 3) == [] == moved([]) and describe_moved([]) == []
    rare = [step(0.001, 0.999, **said), step(0.5, 0.5)]
    assert [one.name for one in moved(rare)] == ["native_calls"]


def test_a_move_that_sampling_alone_could_make_is_called_so():
    share, drift = "behaviour/native_calls", "diagnostics/drift/native_calls"
    steps = [{share: value, drift: -0.1, "rollouts": 64} for value in (0.5, 0.5625, 0.5625)]
    (one,) = moved(steps)
    pooled = (0.5 * 64 + 0.5625 * 128) / 192
    assert one.noise == pytest.approx(2 * math.sqrt(pooled * (1 - pooled) * (1 / 64 + 1 / 128)))
    assert not one.clear and not one.right
    assert describe_moved([one]) == [
        "predicted at the start: 0 of 0 clear moves right, 0 of all 1",
        "  native_calls        -0.100, share 0.50 -> 0.56: MISSED (within the noise of sampling)",
    ]
    (far,) = moved([{**step, share: step[share] - 0.25 * (n > 0)} for n, step in enumerate(steps)])
    assert far.clear and far.right and far.after == 0.3125

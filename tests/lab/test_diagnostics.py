"""Diagnostics: exact quantities against hand-made numbers, gradients against plain autograd."""

import json
import math
import os
import re
import shutil
import statistics
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from support.builders import SIZE, make_task, write_manifest
from support.evaluations import report, row
from support.learning import SHAPE as LEARNER_SHAPE
from support.learning import plain_logprobs, tokens, trajectory
from support.recipes import SHAPE

from agents.algorithm.advantages import Scores, decomposed
from agents.algorithm.config import PARAGRPOConfig
from agents.algorithm.credit import Batch
from agents.config import AgentConfig
from agents.model.mini import build_mini
from agents.model.vlm import VisionLanguageModel
from paravt_env.protocol import Role
from train import cli
from train.common.errors import ConfigError
from train.common.metrics_file import read_metrics
from train.config import recipe
from train.config.env import EnvConfig
from train.config.learner import LearnerConfig, OptimizerConfig
from train.config.run import DiagnosticsConfig, RunConfig, TrainConfig
from train.config.selection import SelectionConfig
from train.lab.diagnose.advice import Cosine, advise
from train.lab.diagnose.gradients import (
    cosine,
    credited,
    dot,
    measure_batch,
    measure_gradients,
    scores_of,
)
from train.lab.diagnose.observer import TermDiagnostics
from train.lab.diagnose.probe import moved_square, probe_starts, trained_tasks
from train.lab.diagnose.records import read_training, read_transfers
from train.lab.diagnose.report import as_plain, describe_transfers
from train.lab.diagnose.terms import group_terms, measure_terms
from train.lab.diagnose.theory import convergence_slope, gaussian_divergence, pac_bayes
from train.learner.learner import Learner
from train.loop.launch import train
from train.rollout import play as rollout
from train.workers import rollout_workers

WEIGHTS = {"answer": 1.0, "format_anchor": 0.5, "tool_gain": 0.0}


def scores(answer, form, weights=WEIGHTS, groups=None):
    """Rewards that are the weighted sum of an answer and a format term."""
    terms = {"answer": np.array(answer), "format_anchor": np.array(form)}
    terms["tool_gain"] = np.full(len(answer), 7.0)
    rewards = sum(weights[name] * values for name, values in terms.items())
    return Scores(rewards, np.zeros(len(answer)) if groups is None else groups, terms, weights)


# ---- terms ----------------------------------------------------------------------------------


def test_the_shares_scales_and_correlations_of_one_group():
    # variances 3/16 each, covariance 1/16; R = 0, .5, .5, 1.5 has variance 19/64
    terms = measure_terms(scores([0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0]))
    assert terms.shares == pytest.approx({"answer": 14 / 19, "format_anchor": 5 / 19})
    scale = math.sqrt(12 / 19)
    assert terms.scales == pytest.approx({"answer": scale, "format_anchor": scale})
    assert terms.correlations == pytest.approx({("answer", "format_anchor"): 1 / 3})
    assert (terms.groups, terms.rollouts) == (1, 4)
    assert (terms.distinct_joint, terms.distinct_decomposed) == (3.0, 3.0)
    # c = scale * (1, 1/2) against w = (1, 1/2)
    assert terms.gap == pytest.approx(1.5 * (1 - scale))
    assert terms.identity_error < 1e-12


def test_means_are_taken_over_the_groups_that_can_say_it():
    both = scores([0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0])
    answers = [*both.terms["answer"], 0.0, 1.0, 2.0, 2.0]
    forms = [*both.terms["format_anchor"], 1.0, 1.0, 1.0, 1.0]
    terms = measure_terms(scores(answers, forms, groups=np.array([0] * 4 + [1] * 2 + [2] * 2)))
    assert terms.shares == pytest.approx({"answer": (14 / 19 + 1) / 2, "format_anchor": 2.5 / 19})
    assert terms.scales == pytest.approx(
        {"answer": (math.sqrt(12 / 19) + 1) / 2, "format_anchor": math.sqrt(12 / 19)}
    )
    assert terms.correlations == pytest.approx({("answer", "format_anchor"): 1 / 3})
    assert terms.flat == pytest.approx(1 / 3)
    assert terms.flat_terms == pytest.approx({"answer": 1 / 3, "format_anchor": 2 / 3})
    assert terms.distinct_joint == pytest.approx((3 + 2 + 1) / 3)


def test_the_sum_can_hide_what_single_terms_tell_apart():
    weights = {**WEIGHTS, "format_anchor": 1.0}
    terms = measure_terms(scores([1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], weights))
    assert (terms.distinct_joint, terms.distinct_decomposed) == (2.0, 3.0)


def test_terms_that_cancel_leave_no_share_and_the_identity_holds():
    weights = {**WEIGHTS, "format_anchor": 1.0}
    found = scores([0.0, 1.0], [1.0, 0.0], weights)
    terms = measure_terms(found)
    assert (terms.shares, terms.scales, terms.flat) == ({}, {}, 1.0)
    assert terms.flat_terms == {"answer": 0.0, "format_anchor": 0.0}
    assert terms.correlations == pytest.approx({("answer", "format_anchor"): -1.0})
    assert terms.identity_error == 0.0
    assert not any("share" in name for name in terms.metrics())


def test_joint_minus_decomposed_is_the_sum_of_coefficients_minus_weights():
    """A - A_dec = sum_k (c_k - w_k) A_k, in plain Python beside the estimators."""
    rng = np.random.default_rng(0)
    names, weights = ("answer", "format_anchor", "tool_gain"), (1.0, 0.5, 2.0)
    terms = {name: rng.choice([0.0, 0.3, 1.0], 24) for name in names}
    terms["tool_gain"][:8] = 0.3  # flat in the first group
    weighed = dict(zip(names, weights, strict=True))
    rewards = sum(weighed[name] * terms[name] for name in names)
    found = group_terms(Scores(rewards, np.repeat([0, 1, 2], 8), terms, weighed))
    for g, group in enumerate(found):
        members = range(8 * g, 8 * g + 8)
        total = [float(rewards[i]) for i in members]
        joint = [(r - statistics.fmean(total)) / statistics.pstdev(total) for r in total]
        apart, gap = [0.0] * 8, [0.0] * 8
        for name, weight in weighed.items():
            values = [float(terms[name][i]) for i in members]
            std = statistics.pstdev(values)
            if std == 0:
                continue
            coefficient = weight * std / statistics.pstdev(total)
            for n, value in enumerate(values):
                standardised = (value - statistics.fmean(values)) / std
                apart[n] += weight * standardised
                gap[n] += (coefficient - weight) * standardised
        np.testing.assert_allclose(group.joint_G, joint, atol=1e-12)
        np.testing.assert_allclose(group.decomposed_G, apart, atol=1e-12)
        np.testing.assert_allclose(group.joint_G - group.decomposed_G, gap, atol=1e-12)
        own = (group.coefficients_K - group.weights_K) @ group.advantages_KG
        np.testing.assert_allclose(own, gap, atol=1e-12)
        assert group.identity_error < 1e-12
        assert group.shares_K.sum() == pytest.approx(1.0)
        assert np.abs(group.joint_G - group.decomposed_G).mean() <= group.gap


def test_the_identity_error_is_seen():
    (group,) = group_terms(scores([0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0]))
    shifted = replace(group, joint_G=group.joint_G + np.array([0.25, 0, 0, 0]))
    assert shifted.identity_error == pytest.approx(0.25)


def test_rewards_that_hold_more_than_their_terms_are_refused():
    found = scores([0.0, 1.0], [0.0, 1.0])
    with pytest.raises(ValueError, match="do not add up"):
        measure_terms(replace(found, rewards=found.rewards + np.array([0.0, 1.0])))
    with pytest.raises(ValueError, match="no scored rollouts"):
        measure_terms(Scores(np.zeros(0), np.zeros(0)))


def test_the_names_in_the_log():
    terms = measure_terms(scores([0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0]))
    assert terms.metrics() == pytest.approx(
        {
            "diagnostics/share/answer": 14 / 19,
            "diagnostics/share/format_anchor": 5 / 19,
            "diagnostics/scale/answer": math.sqrt(12 / 19),
            "diagnostics/scale/format_anchor": math.sqrt(12 / 19),
            "diagnostics/correlation/answer~format_anchor": 1 / 3,
            "diagnostics/zero_variance/all": 0.0,
            "diagnostics/zero_variance/answer": 0.0,
            "diagnostics/zero_variance/format_anchor": 0.0,
            "diagnostics/distinct/joint": 3.0,
            "diagnostics/distinct/decomposed": 3.0,
            "diagnostics/identity_error": 0.0,
            "diagnostics/gap": 1.5 * (1 - math.sqrt(12 / 19)),
        },
        abs=1e-12,
    )


# ---- advice, slope, bound -------------------------------------------------------------------

APART, NOISE, ALONG = (
    Cosine(-0.3, (-0.2, -0.4)),
    Cosine(-0.2, (-0.6, 0.2)),
    Cosine(0.5, (0.4, 0.6)),
)
FORM, TOOL = ("answer", "format_anchor"), ("answer", "tool_gain")
EVEN, STEEP = {"answer": 0.8, "tool_gain": 0.4}, {"answer": 0.9, "tool_gain": 0.2}


@pytest.mark.parametrize(
    ("scales", "cosines", "choice", "reason"),
    [
        (EVEN, {TOOL: ALONG}, "joint", "c/w of answer is 2.0 times that of tool_gain, and no pair"),
        (STEEP, {TOOL: ALONG}, "decomposed", "4.5 times that of tool_gain, .*tool_gain drowns"),
        (STEEP, {TOOL: NOISE}, "decomposed", "no pair of gradients pulls apart"),
        (STEEP, {TOOL: Cosine(-0.09, (-0.1, -0.1))}, "decomposed", "no pair of gradients"),
        (STEEP, {TOOL: Cosine(-0.11, (-0.1, -0.1))}, "gated", "pull apart"),
        (STEEP, {}, "decomposed", "cosines were not measured"),
        (STEEP, {TOOL: APART}, "gated", r"answer and tool_gain pull apart \(cosine -0.30\)"),
        (EVEN, {FORM: Cosine(-0.9, (-0.9, -0.9)), TOOL: APART}, "gated", "answer and tool_gain"),
        (STEEP, {FORM: APART, TOOL: ALONG}, "joint", "gating tool_gain does not touch"),
        ({"answer": 1.0}, {}, "joint", "answer alone varies"),
        ({}, {}, "joint", "no term alone varies"),
    ],
)
def test_the_advice_and_its_reason(scales, cosines, choice, reason):
    advice = advise(scales, cosines)
    assert advice.choice == choice
    assert re.search(reason, advice.reason)


def with_running_mean(means):
    """Values whose running mean is `means`."""
    sums = [mean * (t + 1) for t, mean in enumerate(means)]
    return [b - a for a, b in zip([0.0, *sums], sums, strict=False)]


def test_the_slope_of_a_running_mean_that_falls_as_the_root_of_the_steps():
    values = with_running_mean([(t + 1) ** -0.5 for t in range(40)])
    slope = convergence_slope(range(40), values)
    assert slope.slope == pytest.approx(-0.5, abs=1e-9)
    assert (slope.points, slope.left_out) == (40, 0)
    assert convergence_slope(range(12), [3.0] * 12).slope == pytest.approx(0.0, abs=1e-12)


def test_the_slope_counts_what_it_leaves_out_and_wants_enough_steps():
    values = [-1.0, -1.0, 6.0, *[1.0] * 10]
    slope = convergence_slope(range(13), values)
    assert (slope.points, slope.left_out) == (11, 2)
    assert convergence_slope(range(9), [1.0] * 9) is None
    assert convergence_slope([], []) is None


def test_the_slope_is_over_steps_and_not_over_measurements():
    steps = range(0, 100, 5)
    values = with_running_mean([(t + 1) ** -0.5 for t in steps])
    assert convergence_slope(steps, values).slope == pytest.approx(-0.5, abs=1e-9)


def test_half_batches_show_a_slope_that_the_noise_of_the_square_hides():
    """Gradients whose mean square is known, and falls as the root of the steps, under noise."""
    rng = np.random.default_rng(0)
    size, noise = 10_000, 0.02  # of a half's entries; the square of their mean keeps 2 of it
    steps = []
    for step, square in enumerate(with_running_mean([(t + 1) ** -0.5 for t in range(200)])):
        true = np.full(size, math.sqrt(square / size))
        halves = [torch.from_numpy(true + rng.normal(0, noise, size)) for _ in range(2)]
        steps.append({
            "step": step,
            "diagnostics/grad_product": dot([halves[0]], [halves[1]]),
            "grad_norm": float((halves[0] + halves[1]).norm() / 2),
        })  # fmt: skip
    training = read_training(steps)
    assert training.slope.slope == pytest.approx(-0.5, abs=0.05)
    assert training.biased_slope.slope == pytest.approx(0.0, abs=0.1)


def test_the_pac_bayes_figure():
    # (ln(2 sqrt(64) / 0.1)) = ln 160; (20 + ln 160) / 128
    assert pac_bayes(20.0, 64, 0.1) == pytest.approx(math.sqrt((20 + math.log(160)) / 128))
    assert pac_bayes(20.0, 64, 0.1) == pytest.approx(0.442606, abs=1e-6)
    assert gaussian_divergence(0.02, 0.1) == pytest.approx(1.0)
    for wrong in ((-1.0, 64, 0.1), (1.0, 7, 0.1), (1.0, 64, 1.0)):
        with pytest.raises(ValueError, match="needed"):
            pac_bayes(*wrong)
    with pytest.raises(ValueError, match="infinite"):
        gaussian_divergence(1.0, 0.0)


# ---- gradients ------------------------------------------------------------------------------


@dataclass
class Played:
    """What the diagnostics look at of a rollout."""

    reward: float
    terms: dict
    trajectories: tuple = ()
    executed: int = 0
    frame_budget: int = 4
    error: str = field(default="")


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    words = ["where does the red circle blink"] * 4
    return VisionLanguageModel.load(
        build_mini(tmp_path_factory.mktemp("mini"), words, LEARNER_SHAPE)
    )


def method_config(**settings):
    defaults = {
        "kl_coefficient": 0.0, "loss": "clipped", "batch_normalise": False, "group_size": 3,
    }  # fmt: skip
    return PARAGRPOConfig(**{**defaults, **settings})


ANSWERS = [[0.0, 1.0, 1.0], [1.0, 0.0, 0.5], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]]
FORMS = [[0.2, 0.4, 0.9], [0.5, 0.5, 0.5], [0.1, 0.0, 0.3], [0.7, 0.2, 0.2]]
WEIGHED = {"answer": 1.0, "format_anchor": 0.5}


@pytest.fixture(scope="module")
def groups(vlm):
    """Four groups of three rollouts; the second token of each is a tag."""
    rng = np.random.default_rng(5)
    made = []
    for answers, forms in zip(ANSWERS, FORMS, strict=True):
        prompt, group = tokens(vlm, rng, 7), []
        for answer, form in zip(answers, forms, strict=True):
            one = trajectory(vlm, rng, prompt, [], [int(rng.integers(3, 7))])
            roles = one.roles.copy()
            roles[1] = Role.tag
            terms = {"answer": answer, "format_anchor": form, "tool_gain": 3.0}
            reward = sum(w * terms[k] for k, w in WEIGHED.items())
            group.append(Played(reward, terms, (replace(one, roles=roles),)))
        made.append(group)
    return made


def standardised(values):
    std = statistics.pstdev(values)
    return [(v - statistics.fmean(values)) / std if std else 0.0 for v in values]


def plain_gradient(vlm, groups, places, advantage):
    """Of -sum A log pi / tokens over some groups; `advantage(g, n)` is (C,) or a number."""
    vlm.model.zero_grad(set_to_none=True)
    vlm.model.requires_grad_(True)
    chosen = [
        (one.trajectories[0], advantage(g, n)) for g in places for n, one in enumerate(groups[g])
    ]
    count = sum(int(one.loss_mask.sum()) for one, _ in chosen)
    for one, value in chosen:
        value_C = np.broadcast_to(value, one.loss_mask.shape)[one.loss_mask]
        logprobs, _ = plain_logprobs(vlm, one)
        (-(torch.from_numpy(value_C.copy()).float() * logprobs).sum() / count).backward()
    found = [
        p.grad.flatten() if p.grad is not None else torch.zeros(p.numel())
        for p in vlm.model.parameters()
    ]
    vlm.model.zero_grad(set_to_none=True)
    return torch.cat(found).double()


def measured(vlm, groups, chosen=(0, 1, 2, 3), weights=WEIGHED, **settings):
    config = method_config(**settings)
    learner = Learner(vlm, LearnerConfig(config, temperature=0.7))
    batch = credited(groups, config, weights)
    return measure_gradients(learner, config, weights, groups, batch, chosen)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch_normalise": True},
        {"advantage": "gated", "weights": {**WEIGHED, "tool_gain": 1.0}},
    ],
    ids=["plain", "normalised", "gated"],
)
@pytest.mark.parametrize("where", ["trajectory", "token"])
def test_gradients_of_terms_equal_plain_autograd(vlm, groups, where, settings):
    """However the run normalises: a term is credited alone, by `grpo`. (The tool term is flat.)"""
    found = measured(vlm, groups, credit=where, **settings)

    def answer(g, n):
        return standardised(ANSWERS[g])[n]

    def form(g, n):
        value = standardised(FORMS[g])[n]
        tags = groups[g][n].trajectories[0].roles == Role.tag
        return value * tags if where == "token" else value

    a, b = ([plain_gradient(vlm, groups, half, one) for half in ((0, 1), (2, 3))] for one in
            (answer, form))  # fmt: skip
    whole = [(x[0] + x[1]) / 2 for x in (a, b)]

    def cos(x, y):
        return float(x @ y / (x.norm() * y.norm()))

    one = found.cosines["answer", "format_anchor"]
    assert one.whole == pytest.approx(cos(*whole), abs=1e-4)
    assert one.halves == pytest.approx((cos(a[0], b[0]), cos(a[1], b[1])), abs=1e-4)
    norms = dict(zip(WEIGHED, (float(x.norm()) for x in whole), strict=True))
    assert found.norms == pytest.approx(norms, rel=1e-4)


def test_the_product_is_of_the_trained_advantages_on_two_halves(vlm, groups):
    found = measured(vlm, groups, advantage="decomposed", loss="decoupled")

    def trained(g, n):
        return standardised(ANSWERS[g])[n] + 0.5 * standardised(FORMS[g])[n]

    a, b = (plain_gradient(vlm, groups, half, trained) for half in ((0, 1), (2, 3)))
    assert found.product == pytest.approx(float(a @ b), rel=1e-3, abs=1e-9)
    assert found.square == pytest.approx(float(((a + b) / 2).square().sum()), rel=1e-4)
    # linear in A: the decomposed gradient is the weighted sum of the terms'
    norms = found.norms["answer"], found.norms["format_anchor"]
    one = found.cosines["answer", "format_anchor"].whole
    expected = norms[0] ** 2 + 0.25 * norms[1] ** 2 + norms[0] * norms[1] * one
    assert found.square == pytest.approx(expected, rel=1e-4)


def test_a_term_without_variance_has_no_gradient_and_no_cosine(vlm, groups):
    found = measured(vlm, groups, chosen=(1, 1))
    assert list(found.norms) == ["answer"]
    assert found.cosines == {}


def test_a_probe_leaves_the_learner_as_it_was(vlm, groups):
    config = method_config()
    learner = Learner(vlm, LearnerConfig(config, temperature=0.7))
    weights = [p.detach().clone() for p in learner.parameters]
    generators = learner.rng.bit_generator.state, torch.get_rng_state()
    batch = credited(groups, config, WEIGHED)
    kept = [a.copy() for a in batch.advantages]
    metrics = measure_batch(learner, config, WEIGHED, groups, batch, [0, 1])
    assert {"diagnostics/advice", "diagnostics/cosine/answer~format_anchor"} <= metrics.keys()
    assert learner.method is config
    assert all(p.grad is None for p in learner.parameters)
    assert all(torch.equal(a, b) for a, b in zip(weights, learner.parameters, strict=True))
    assert generators[0] == learner.rng.bit_generator.state
    assert torch.equal(generators[1], torch.get_rng_state())
    assert all((a == b).all() for a, b in zip(kept, batch.advantages, strict=True))
    without = measure_batch(learner, config, WEIGHED, groups, batch, [])
    unsaid = ("cosine", "grad_", "advice")  # an advice would look like one that knows cosines
    assert without.keys() == {k for k in metrics if not any(part in k for part in unsaid)}
    flat = measure_batch(learner, config, WEIGHED, groups, batch, [1, 1])  # in one of the terms
    assert "diagnostics/grad_norm/answer" in flat and "diagnostics/advice" not in flat


def test_a_probe_needs_two_groups(vlm, groups):
    with pytest.raises(ValueError, match="at least 2"):
        measured(vlm, groups, chosen=(0,))


def test_rollouts_that_were_not_scored_are_left_out(vlm, groups):
    failed = Played(0.0, {})
    found = scores_of([[failed], [*groups[0], failed]], WEIGHED)
    assert found.groups.tolist() == [1, 1, 1]
    assert decomposed(found).shape == (3,)
    assert scores_of([[failed]], WEIGHED) is None
    assert measure_batch(None, method_config(), WEIGHED, [[failed]], None, []) == {}


def test_inner_products_pass_over_what_has_no_gradient():
    left, right = [torch.tensor([3.0, 4.0]), None], [torch.tensor([1.0, 0.0]), torch.ones(2)]
    assert dot(left, right) == 3.0
    assert cosine(left, [torch.tensor([6.0, 8.0]), None]) == pytest.approx(1.0)
    assert math.isnan(cosine(left, [None, None]))


# ---- an observer of a run -------------------------------------------------------------------


@dataclass
class Step:
    """What an observer looks at of a step."""

    number: int
    kept: list
    batch: Batch
    reward_weights: dict
    learner: Learner | None


@pytest.fixture
def step(vlm, groups):
    """The seventh step of a run: four groups behind one whose video could not be read."""
    config = method_config()
    kept = [[Played(0.0, {})], *groups]
    return Step(
        6,
        kept,
        credited(kept, config, WEIGHED),
        WEIGHED,
        Learner(vlm, LearnerConfig(config, temperature=0.7)),
    )


def test_an_observer_measures_drawn_groups_before_the_update_and_says_how_long_it_took(step):
    config, asked = method_config(), DiagnosticsConfig(every=3, groups=2)
    observer = TermDiagnostics(asked, config, seed=5)
    found = observer.before_update(step)
    assert found.pop("time/diagnostics") > 0
    chosen = [1 + place for place in np.random.default_rng([5, 6]).permutation(4)[:2].tolist()]
    alone = step.learner, config, WEIGHED, step.kept, step.batch
    assert found == measure_batch(*alone, chosen)
    assert "diagnostics/grad_product" in found
    assert found != measure_batch(*alone, [one for one in (1, 2, 3, 4) if one not in chosen])
    assert found != TermDiagnostics(asked, config, seed=6).before_update(step)
    assert observer.after_update(step) == {}


def test_an_observer_measures_in_the_steps_that_are_asked_for(step):
    config = method_config()
    every = {
        number: TermDiagnostics(DiagnosticsConfig(number, groups=0), config, seed=5)
        for number in (0, 1, 3, 4)
    }
    found = {number: observer.before_update(step) for number, observer in every.items()}
    assert {number: bool(metrics) for number, metrics in found.items()} == {
        0: False, 1: True, 3: True, 4: False
    }  # fmt: skip
    assert "diagnostics/gap" in found[3] and "diagnostics/grad_product" not in found[3]


def test_an_observer_of_a_step_without_rollouts_says_its_time_alone(step):
    nothing = replace(step, kept=[[Played(0.0, {})]], batch=Batch([], [], []), learner=None)
    observer = TermDiagnostics(DiagnosticsConfig(every=1, groups=2), method_config(), seed=5)
    assert list(observer.before_update(nothing)) == ["time/diagnostics"]


# ---- in a run, and the command --------------------------------------------------------------


@pytest.fixture(scope="module")
def settings(clip, other_clip, tmp_path_factory):
    """A tiny run: 3 groups of 2 on two videos."""
    folder = tmp_path_factory.mktemp("diagnosed")
    for path in (clip, other_clip):
        os.link(path, folder / os.path.basename(path))
    tasks = [
        make_task(clip),
        make_task(other_clip, "shape", question="Which shape?"),
        make_task(clip, "third", question="Which one?"),
    ]
    manifest = write_manifest(folder / "tasks.jsonl", tasks)
    model = build_mini(folder / "mini", ["crop the video"] * 3, SHAPE)

    def make(name, steps=2, **changes):
        return TrainConfig(
            env=EnvConfig(
                tasks=manifest, frame_size=SIZE, max_turns=1, max_crops=2, frames_per_crop=2,
                frame_budget=2,
            ),
            agent=AgentConfig(
                checkpoint=str(model), prompt_style="compact", temperature=1.0, max_new_tokens=6,
                answer_tokens=4, subagent_tokens=3,
            ),
            algorithm=PARAGRPOConfig(
                groups=3, group_size=2, kl_coefficient=0.01,
            ),
            optimizer=OptimizerConfig(learning_rate=1e-3),
            run=RunConfig(
                name=name, folder=str(folder / "runs"), steps=steps, wandb="disabled",
                checkpoint_every=0,
            ),
            **changes,
        )  # fmt: skip

    return make


@pytest.fixture(scope="module")
def varied():
    """A random policy earns next to nothing: its answers are graded by their text instead."""

    def play(env, agent, starts, progress=None):
        weights, rollouts = env.simulation.preset.weights, []
        for one in rollout.play(env, agent, starts, progress):
            text = "".join(turn["completion"] for turn in one.turns)
            terms = {**one.terms, "answer": (sum(map(ord, text)) % 97) / 100}
            reward = sum(weight * terms[name] for name, weight in weights.items())
            rollouts.append(replace(one, reward=reward, terms=terms))
        return rollouts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollout_workers, "play", play)
        patch.setattr("train.lab.diagnose.probe.play", play)
        yield


@pytest.fixture(scope="module")
def diagnosed(settings, varied):
    """The folder of a run that was measured in every second step."""
    config = settings("measured", steps=3, diagnostics=DiagnosticsConfig(every=2, groups=2))
    train(config)
    return config.run.path


def numbers(folder):
    left_out = ("time/", "diagnostics/", "frames_")
    return [
        {k: v for k, v in step.items() if not k.startswith(left_out)}
        for step in read_metrics(folder)
    ]


def test_measuring_changes_nothing_else_in_a_run(settings, diagnosed):
    plain = settings("plain", steps=3)
    train(plain)
    assert numbers(plain.run.path) == numbers(diagnosed)
    assert not any("diagnostics" in name for step in read_metrics(plain.run.path) for name in step)


def test_a_run_logs_its_diagnostics_in_the_steps_that_are_asked_for(diagnosed):
    steps = read_metrics(diagnosed)
    there = [any(name.startswith("diagnostics/") for name in step) for step in steps]
    assert there == [True, False, True]
    first = steps[0]
    assert first["diagnostics/zero_variance/all"] == first["groups/zero_variance"]
    assert first["diagnostics/identity_error"] < 1e-9
    assert {"diagnostics/share/answer", "diagnostics/grad_product"} <= first.keys()
    assert first["diagnostics/advice"] in (0.0, 1.0, 2.0)
    assert first["time/diagnostics"] > 0


def evaluation(path, **scores):
    report(*(row(name, score) for name, score in scores.items())).save(path)
    return str(path)


def test_diagnose_a_run(diagnosed, tmp_path, monkeypatch, capsys):
    for module in ("lab.diagnose.probe", "lab.diagnose.theory"):  # the run has 2 videos
        monkeypatch.setattr(f"train.{module}.FEWEST_SAMPLES", 2)
    old, new = ({k: v for k, v in zip("abcd", values, strict=True)}
                for values in ((0, 0, 0, 0), (1, 1, 1, 1)))  # fmt: skip
    other = {"x": 0.5, "y": 0.5}, {"x": 1.0, "y": 0.5}
    files = [
        evaluation(tmp_path / f"{name}.json", **rows)
        for name, rows in (("s0", old), ("a0", other[0]), ("s1", new), ("a1", other[1]))
    ]
    words = [
        "diagnose", str(diagnosed), "--groups", "3",
        "--before", f"synthetic={files[0]},atari={files[1]}",
        "--after", f"synthetic={files[2]},atari={files[3]}",
    ]  # fmt: skip
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    for said in (
        "probe: 6 rollouts in 3 groups", "advice (a rule of thumb): ", "training: 3 steps",
        "no de-biased slope: too few steps", "PAC-Bayes figure: E_train - E_test <= ",
        "n = 2 videos, s = 0.01", "synthetic (trained)        0.000   1.000  +100.0",
        "atari: 25 % of the gain on synthetic; accuracy +25.0 points apart after training",
    ):  # fmt: skip
        assert said in out, said
    content = json.loads((diagnosed / "diagnostics.json").read_text())
    assert content["probe"]["terms"]["rollouts"] == 6
    assert sum(content["probe"]["terms"]["shares"].values()) == pytest.approx(1.0)
    assert content["probe"]["bound"]["videos"] == 2
    assert content["probe"]["bound"]["distance"] > 0
    assert [one["name"] for one in content["transfer"]] == ["synthetic", "atari"]
    assert sum(content["training"]["advised"].values()) == 2


def test_the_probe_repeats_itself(diagnosed, capsys):
    reports = []
    for _ in range(2):
        assert cli.main(["diagnose", str(diagnosed), "--groups", "2", "--seed", "3"]) == 0
        reports.append(capsys.readouterr().out)
    assert reports[0] == reports[1]
    assert "no transfer: give evaluations" in reports[0]
    assert "no PAC-Bayes figure: n = 2 videos, and n < 8" in reports[0]


def test_the_probe_and_the_bound_are_of_the_tasks_that_were_trained_on(
    diagnosed, tmp_path, monkeypatch, capsys
):
    drawn = []
    folder = shutil.copytree(diagnosed, tmp_path / "moved")
    config = recipe.load(TrainConfig, folder / "config.yaml")
    recipe.save(replace(config, selection=SelectionConfig(prior_rollouts=2)), folder)

    def starts(ids, *rest):
        drawn.append(ids)
        return probe_starts(ids, *rest)

    monkeypatch.setattr("train.lab.diagnose.probe.probe_starts", starts)
    words = ["diagnose", str(folder), "--groups", "2"]
    assert cli.main(words) == 2
    assert "pass_rates.json holds no pass rates" in capsys.readouterr().err
    (folder / "pass_rates.json").write_text('{"colour": 0.5, "shape": 1.0, "third": 0.5}')
    assert cli.main(words) == 0
    assert drawn == [("colour", "third")]
    assert "n = 1 videos" in capsys.readouterr().out
    other = tmp_path / "rates.json"
    other.write_text('{"colour": 0.0, "shape": 0.5}')
    config = replace(config, selection=SelectionConfig(prior_file=str(other)))
    assert trained_tasks(config, folder, ["colour", "shape"]) == ("shape",)


def test_the_log_alone_needs_no_checkpoint(diagnosed, tmp_path, capsys):
    for name in ("config.yaml", "metrics.jsonl"):
        (tmp_path / name).write_text((diagnosed / name).read_text())
    assert cli.main(["diagnose", str(tmp_path), "--groups", "0"]) == 0
    assert "no probe (--groups 0): the log alone" in capsys.readouterr().out
    assert json.loads((tmp_path / "diagnostics.json").read_text())["probe"] is None
    assert cli.main(["diagnose", str(tmp_path)]) == 2
    assert "has no checkpoint to probe: --groups 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no/such/run"], "holds no config.yaml"),
        (["RUN", "--groups", "1"], "at least 2"),
        (["RUN", "--noise", "0"], "--noise must be positive"),
        (["RUN", "--before", "nothing.json"], "nothing.json holds no after.json"),
    ],
)
def test_mistakes_are_one_line_and_status_2(diagnosed, words, message, capsys):
    words = [str(diagnosed) if word == "RUN" else word for word in words]
    assert cli.main(["diagnose", *words]) == 2
    captured = capsys.readouterr().err
    assert message in captured and captured.count("\n") == 1


def test_evaluations_come_in_pairs_of_the_same_tasks(tmp_path):
    one, two = evaluation(tmp_path / "one.json", a=0.0), evaluation(tmp_path / "two.json", b=1.0)
    with pytest.raises(ConfigError, match="--before has 1 evaluations, --after 0"):
        read_transfers(one, "")
    with pytest.raises(ConfigError, match="one -> two: evaluations of different tasks"):
        read_transfers(one, two)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ConfigError, match="no evaluation of `paravt eval`"):
        read_transfers(str(tmp_path / "bad.json"), one)
    assert read_transfers("", "") == []


def test_no_share_is_claimed_of_a_gain_that_may_be_chance(tmp_path):
    place = evaluation(tmp_path / "one.json", a=0.0, b=1.0)
    transfers = read_transfers(f"{place},{place}", f"{place},{place}")
    assert any("no share of a gain" in line for line in describe_transfers(transfers))


def test_what_the_log_says_of_a_run():
    steps = [
        {"step": t, "accuracy": t / 20, "groups/zero_variance": 0.5, "grad_norm": (t + 1) ** -0.5,
         "diagnostics/grad_product": product, "diagnostics/advice": float(t % 2)}
        for t, product in enumerate(with_running_mean([(t + 1) ** -0.25 for t in range(20)]))
    ]  # fmt: skip
    steps[3]["accuracy"] = None
    training = read_training(steps)
    assert training.slope.slope == pytest.approx(-0.25, abs=1e-9)
    assert training.biased_slope.slope < -0.5  # of the mean of 1 / t
    assert training.accuracy == pytest.approx(sum(range(10, 20)) / 200)
    assert training.advised == {"joint": 10, "decomposed": 10}
    assert read_training([]).slope is None


def test_the_distance_of_two_models():
    one, two = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    with torch.no_grad():
        for p, q in zip(one.parameters(), two.parameters(), strict=True):
            q.copy_(p + 2)
    assert moved_square(one, two) == pytest.approx(12.0, rel=1e-5)
    with pytest.raises(ValueError, match="replaced"):
        moved_square(one, torch.nn.Linear(3, 1))


def test_groups_of_a_probe_share_their_start():
    starts = probe_starts(("a", "b"), 3, 2, seed=0)
    assert len(starts) == 6
    assert [starts[i] == starts[i + 1] for i in (0, 2, 4)] == [True] * 3
    assert {start.task_id for start in starts} == {"a", "b"}
    assert len({start.seed for start in starts}) == 3


def test_one_group_cannot_be_halved():
    with pytest.raises(ValueError, match="two halves"):
        DiagnosticsConfig(groups=1)


def test_what_is_unknown_becomes_null():
    plain = as_plain({("a", "b"): Cosine(0.5, (math.nan, 0.25))})
    assert plain == {"a~b": {"whole": 0.5, "halves": [None, 0.25]}}

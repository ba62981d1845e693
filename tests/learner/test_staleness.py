"""Versions of the weights: what is refused, what pi_prox is, and what is logged."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.learning import MANY_TURNS, ONE_TURN, SHAPE, config, make_batch
from support.learning import plain_logprobs as plain

from agents.algorithm.losses import LOSSES
from agents.base import Trajectory
from agents.model.mini import build_mini
from agents.model.vlm import VisionLanguageModel
from agents.text.context import TokenContext
from train.learner.learner import Learner
from train.learner.staleness import StalenessError, staleness, staleness_metrics


def drawn_by(*versions):
    none = np.zeros(0)
    return [Trajectory(none, none, none, none, none, version=version) for version in versions]


def test_staleness_is_the_number_of_updates_since_a_trajectory_was_drawn():
    assert staleness(drawn_by(7, 5, 6), version=7, bound=2).tolist() == [0, 2, 1]
    assert staleness(drawn_by(7, 5), bound=2).tolist() == [0, 2]
    assert staleness([], version=3).tolist() == []


def test_older_than_the_bound_or_newer_than_the_policy_is_an_error():
    with pytest.raises(StalenessError, match=r"version 4 .* 3 updates before .* 7, and at most 2"):
        staleness(drawn_by(7, 4), version=7, bound=2)
    with pytest.raises(StalenessError, match=r"drawn by version 8 .* policy is at version 7"):
        staleness(drawn_by(7, 8), version=7, bound=2)


def test_the_mean_is_over_trained_tokens():
    metrics = staleness_metrics(np.array([0, 1, 9]), np.array([1, 4, 0]))
    assert metrics == {"staleness/mean": 0.8, "staleness/max": 1.0}


def test_a_conversation_is_drawn_by_one_version():
    context = TokenContext(vlm=None)
    context.drawn_by(3)
    context.drawn_by(3)
    with pytest.raises(RuntimeError, match=r"by versions 3 and 4 of the weights"):
        context.drawn_by(4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    words = ["where does the red circle blink"] * 4
    return build_mini(tmp_path_factory.mktemp("mini"), words, SHAPE)


@pytest.fixture
def vlm(checkpoint):
    return VisionLanguageModel.load(checkpoint)


def with_versions(batch, versions):
    pairs = zip(batch.trajectories, versions, strict=True)
    batch.trajectories[:] = [replace(one, version=version) for one, version in pairs]
    return batch


def recorded(batch, chosen):
    """Behaviour log-probabilities of the trained tokens of some trajectories, sorted."""
    parts = [batch.trajectories[i] for i in chosen]
    return sorted(np.concatenate([one.logprobs[one.loss_mask] for one in parts]).tolist())


@pytest.fixture
def first_inputs(monkeypatch):
    """What each step hands the loss: (proximal, behaviour, logprobs) of each token."""
    seen = []

    def watch(name):
        original = LOSSES[name]

        def spy(inputs):
            columns = (inputs.proximal, inputs.behaviour, inputs.logprobs.detach())
            seen.append(list(zip(*(column.tolist() for column in columns), strict=True)))
            return original(inputs)

        monkeypatch.setitem(LOSSES, name, replace(original, function=spy))
        return seen

    return watch


def passes(learner, monkeypatch):
    """Trained tokens of each forward pass without a gradient."""
    counted, original = [], learner._scores
    monkeypatch.setattr(
        learner,
        "_scores",
        lambda scorer, packed, vision: (
            counted.append(len(packed.target)) or original(scorer, packed, vision)
        ),
    )
    return counted


VERSIONS = [5, 3, 5, 4, 5, 3]
OLDER = [1, 3, 5]


def proximal_by_age(vlm, batch, monkeypatch, first_inputs, loss):
    """Of two steps on the batch, at version 5: what the first is handed, and the tokens passed."""
    seen = first_inputs(loss)
    learner = Learner(vlm, config(loss=loss, epochs=2, staleness=2))
    counted = passes(learner, monkeypatch)
    metrics = learner.update(batch, version=5)
    return seen, sum(counted), metrics


@pytest.mark.parametrize("loss", ["decoupled", "tis", "clipped", "gspo", "cispo"])
def test_what_older_weights_drew_has_the_record_as_proximal_unless_the_loss_weighs_it(
    vlm, monkeypatch, first_inputs, loss
):
    """Behaviour is far from the policy here, so the two kinds of pi_prox are told apart."""
    batch = with_versions(make_batch(vlm, ONE_TURN), VERSIONS)
    lengths = [int(one.loss_mask.sum()) for one in batch.trajectories]
    with torch.no_grad():
        own = {
            round(float(b), 6): float(p)
            for one in batch.trajectories
            for b, p in zip(one.logprobs[one.loss_mask], plain(vlm, one)[0], strict=True)
        }
    old = set(np.round(recorded(batch, OLDER), 6))
    seen, counted, metrics = proximal_by_age(vlm, batch, monkeypatch, first_inputs, loss)
    weighs = LOSSES[loss].own_proximal
    assert counted == sum(n for i, n in enumerate(lengths) if weighs or i not in OLDER)
    assert len(seen[0]) == sum(lengths)
    for proximal, behaviour, logprob in seen[0]:
        assert own[round(behaviour, 6)] == pytest.approx(logprob, abs=1e-4)
        stale = round(behaviour, 6) in old and not weighs
        assert proximal == (pytest.approx(behaviour) if stale else logprob)
    assert any(proximal != logprob for proximal, _, logprob in seen[1])
    tokens = np.array(lengths)
    ages = np.array([0, 2, 0, 1, 0, 2])
    assert metrics["staleness/mean"] == pytest.approx(float((ages * tokens).sum() / tokens.sum()))
    assert metrics["staleness/max"] == 2.0


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("loss", ["decoupled", "clipped"])
def test_the_loss_of_older_and_own_tokens_is_the_plain_one(vlm, loss, epochs):
    """The first step by hand: own tokens have a ratio of 1, the record corrects for older ones."""
    batch, rng = with_versions(make_batch(vlm, MANY_TURNS), VERSIONS), np.random.default_rng(0)
    terms = []
    with torch.no_grad():
        for one in batch.trajectories:
            moved = rng.normal(0, 0.3, one.loss_mask.sum())
            one.logprobs[one.loss_mask] = plain(vlm, one)[0].numpy() + moved
        for one, advantages in zip(batch.trajectories, batch.advantages, strict=True):
            rows = zip(
                plain(vlm, one)[0].tolist(),
                one.logprobs[one.loss_mask].tolist(),
                advantages[one.loss_mask].tolist(),
                strict=True,
            )
            for logprob, behaviour, a in rows:
                ratio = math.exp(logprob - behaviour)
                if loss == "decoupled":  # behaviour_cap drops the token
                    terms.append((-ratio * a if ratio <= 1.2 else 0.0, 0.0))
                elif one.version == 5:
                    terms.append((-a, 0.0))
                else:
                    bounded = min(max(ratio, 0.8), 1.2)
                    terms.append((-min(ratio * a, bounded * a), float(bounded * a < ratio * a)))
    settings = config(loss=loss, behaviour_cap=1.2, epochs=epochs, learning_rate=1e-12, staleness=2)
    metrics = Learner(vlm, settings).update(batch, version=5)
    losses, clipped = zip(*terms, strict=True)
    assert metrics["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert metrics["clip_fraction"] == pytest.approx(sum(clipped) / len(clipped))
    if loss == "decoupled":
        assert 0 < metrics["behaviour_dropped"] < 1
    else:
        assert sum(clipped) > 0


def test_the_first_step_of_a_batch_needs_no_pass_for_the_proximal(vlm, monkeypatch):
    batch = make_batch(vlm, ONE_TURN)
    sizes = [int(one.loss_mask.sum()) for one in batch.trajectories]
    tokens = {
        g: sum(n for n, of in zip(sizes, batch.groups, strict=True) if of == g) for g in (0, 1)
    }
    for loss in ("decoupled", "clipped"):
        learner = Learner(vlm, config(loss=loss, minibatches=2))
        counted, drawn = passes(learner, monkeypatch), np.random.default_rng(0).permutation(2)
        assert learner.update(batch)["staleness/max"] == 0
        assert counted == [tokens[int(drawn[1])]]
        alone = Learner(vlm, config(loss=loss))
        counted = passes(alone, monkeypatch)
        alone.update(batch)
        assert counted == []


@pytest.mark.parametrize("loss", ["decoupled", "tis", "clipped"])
def test_over_several_epochs_all_of_it_is_computed_once(vlm, monkeypatch, loss):
    learner = Learner(vlm, config(loss=loss, epochs=2))
    counted = passes(learner, monkeypatch)
    learner.update(make_batch(vlm, ONE_TURN))
    assert sum(counted) == 28


@pytest.mark.parametrize(("version", "said"), [(7, "at most 1"), (3, "does not have")])
def test_a_batch_that_breaks_the_bound_changes_nothing(vlm, version, said):
    batch = with_versions(make_batch(vlm, ONE_TURN), [5] * 6)
    before = [p.clone() for p in vlm.model.parameters()]
    learner = Learner(vlm, config(loss="decoupled", staleness=1))
    with pytest.raises(StalenessError, match=said):
        learner.update(batch, version)
    assert all(torch.equal(p, b) for p, b in zip(vlm.model.parameters(), before, strict=True))
    assert learner.update(batch, 6)["staleness/mean"] == 1.0

"""Advantages against values worked out by hand."""

import numpy as np
import pytest

from agents.algorithm.advantages import (
    ADVANTAGES,
    Scores,
    calling_gain,
    centered,
    counterfactual,
    decomposed,
    gated,
    grpo,
    leave_one_out,
    normalise_batch,
    token_credit,
    zero_variance,
)

REWARDS = np.array([0.0, 1.0, 2.0, 3.0])
ONE_GROUP = np.zeros(4, dtype=int)
WEIGHTS = {"answer": 1.0, "format_anchor": 0.5, "tool_gain": 2.0}


def of_rewards(rewards, groups):
    """Scores whose whole reward is the answer term."""
    return Scores(
        rewards,
        groups,
        {"answer": rewards, "tool_gain": np.zeros(len(rewards))},
        {"answer": 1.0, "tool_gain": 1.0},
        np.zeros(len(rewards), dtype=bool),
    )


def of_terms(answer, tool, form=None, groups=None, called=None, weights=WEIGHTS, **settings):
    terms = {
        "answer": np.array(answer, dtype=float),
        "format_anchor": np.array(form or [0.0] * len(answer), dtype=float),
        "tool_gain": np.array(tool, dtype=float),
    }
    return Scores(
        rewards=sum(weights[name] * values for name, values in terms.items()),
        groups=np.array(groups or [0] * len(answer)),
        terms=terms,
        weights=weights,
        called=np.array(called or [False] * len(answer), dtype=bool),
        **settings,
    )


def standardised(*values):
    values = np.array(values)
    return (values - values.mean()) / values.std()


def test_grpo_divides_by_the_population_std():
    expected = [-1.341640786, -0.447213595, 0.447213595, 1.341640786]
    np.testing.assert_allclose(grpo(of_rewards(REWARDS, ONE_GROUP)), expected, atol=1e-9)


def test_centered_only_subtracts_the_mean():
    assert centered(of_rewards(REWARDS, ONE_GROUP)).tolist() == [-1.5, -0.5, 0.5, 1.5]


def test_leave_one_out_compares_with_the_other_members():
    expected = [-2.0, -2 / 3, 2 / 3, 2.0]
    np.testing.assert_allclose(leave_one_out(of_rewards(REWARDS, ONE_GROUP)), expected)


def test_decomposed_weighs_terms_that_are_normalised_on_their_own():
    # answers 0, 1, 1, 0 -> -1, 1, 1, -1; tool terms 0, 0, 0, 4 -> -1, -1, -1, 3 over sqrt(3)
    scores = of_terms([0, 1, 1, 0], [0, 0, 0, 4])
    small, large = 2 / 3**0.5, 6 / 3**0.5
    expected = [-1 - small, 1 - small, 1 - small, -1 + large]
    np.testing.assert_allclose(decomposed(scores), expected)


def test_decomposed_ignores_the_scale_of_a_term_and_terms_without_variance():
    one = decomposed(of_terms([0, 1], [0.3, 0.1], form=[1, 1]))
    np.testing.assert_allclose(one, decomposed(of_terms([0, 5], [0.7, 0.1], form=[0, 0])))
    np.testing.assert_allclose(one, [-1 + 2, 1 - 2])


@pytest.mark.parametrize("right", range(1, 8))
def test_terms_that_cancel_leave_no_advantage_for_the_batch_to_inflate(right):
    """The format term falls where the answer is right: about 1e-16 is left of A_1 + A_2."""
    answers = np.array([1.0] * right + [0.0] * (8 - right))
    scores = of_terms(
        [*answers, 0, 1],
        [0] * 10,
        form=[*(0.45 - 0.3 * answers), 0, 0],
        groups=[0] * 8 + [1] * 2,
        weights={**WEIGHTS, "format_anchor": 1.0},
    )
    advantages_N = decomposed(scores)
    assert advantages_N.tolist() == [0.0] * 8 + [-1.0, 1.0]
    tokens = [np.full(length, a) for length, a in zip([5] * 8 + [3, 1], advantages_N, strict=True)]
    normalised = normalise_batch(tokens, [np.ones(len(t), bool) for t in tokens], scores.groups)
    assert not any(a.any() for a in normalised[:8])


def test_decomposed_leaves_out_terms_without_weight():
    scores = of_terms([0, 1], [1, 0], weights={**WEIGHTS, "tool_gain": 0.0})
    assert decomposed(scores).tolist() == [-1.0, 1.0]


def test_decomposed_refuses_rewards_that_are_not_the_sum_of_their_terms():
    scores = of_terms([0, 1], [0, 0])
    with pytest.raises(ValueError, match="do not add up"):
        decomposed(Scores(scores.rewards * 1.1, scores.groups, scores.terms, scores.weights))


def test_gated_counts_the_tool_term_of_right_answers_alone():
    # rewards 2, 1 + 2, 0 + 2, 0.5 + 2: the third loses its tool term, the fourth is just right
    scores = of_terms([2, 1, 0, 0.5], [0, 1, 1, 1])
    np.testing.assert_allclose(gated(scores), standardised(2, 3, 0, 2.5))
    strict = of_terms([2, 1, 0, 0.5], [0, 1, 1, 1], right_from=0.6)
    np.testing.assert_allclose(gated(strict), standardised(2, 3, 0, 0.5))


def test_calling_gain_is_shrunk_by_the_smaller_side():
    answers, called = np.array([1.0, 0.0, 0.0, 0.0]), np.array([True, False, False, False])
    # difference 1, m = 1 * 3 / 4
    assert calling_gain(answers, called, 1.0) == pytest.approx(0.75 / 1.75)
    assert calling_gain(answers, called, 0.0) == 1.0
    assert calling_gain(answers, called, 3.0) == pytest.approx(0.2)
    assert calling_gain(answers, ~called, 1.0) == pytest.approx(-0.75 / 1.75)
    twice = calling_gain(np.repeat(answers, 2), np.repeat(called, 2), 1.0)
    assert twice == pytest.approx(1.5 / 2.5)


@pytest.mark.parametrize("called", [True, False])
def test_calling_gain_of_a_group_that_agrees_is_nothing(called):
    assert calling_gain(np.array([1.0, 0.0]), np.array([called] * 2), 1.0) == 0.0


def test_counterfactual_pays_callers_what_calling_gained_in_their_group():
    # callers 1, 0.5; skippers 0, 0: gain 0.75 / 2 = 0.375, paid twice over (weight 2)
    scores = of_terms([1, 0.5, 0, 0], [0.8, 0.8, 0.1, 0], called=[1, 1, 0, 0])
    np.testing.assert_allclose(counterfactual(scores), standardised(1.75, 1.25, 0, 0))
    doubted = of_terms([1, 0.5, 0, 0], [0.8, 0.8, 0.1, 0], called=[1, 1, 0, 0], shrinkage=3.0)
    np.testing.assert_allclose(counterfactual(doubted), standardised(1.375, 0.875, 0, 0))


def test_counterfactual_makes_harmful_calls_cost_something():
    # callers 0, 1; skippers 1, 1: gain -0.5 / 2
    scores = of_terms([0, 1, 1, 1], [0.3, 0.8, 0, 0], called=[1, 1, 0, 0])
    np.testing.assert_allclose(counterfactual(scores), standardised(-0.5, 0.5, 1, 1))


def test_counterfactual_knows_each_group_and_pays_nothing_where_all_called():
    scores = of_terms([1, 0, 1, 0], [0.8, 0, 0.8, 0.3], groups=[0, 0, 1, 1], called=[1, 0, 1, 1])
    # group 0: gain 1 / 1.5 with m = 1/2 -> 1/3; group 1: nothing to compare
    np.testing.assert_allclose(counterfactual(scores), [1, -1, 1, -1])
    only = of_terms([1, 1, 0], [0.8, 0.8, 0.3], groups=[0, 0, 0], called=[1, 1, 1])
    np.testing.assert_allclose(counterfactual(only), standardised(1, 1, 0))


@pytest.mark.parametrize("name", ADVANTAGES)
def test_groups_do_not_see_each_other(name):
    alone = ADVANTAGES[name](of_rewards(REWARDS, ONE_GROUP))
    interleaved = np.stack([REWARDS, 100 + 7 * REWARDS], axis=1).ravel()
    both = ADVANTAGES[name](of_rewards(interleaved, np.tile([4, 9], 4)))
    np.testing.assert_allclose(both[::2], alone, atol=1e-12)


@pytest.mark.parametrize("name", ADVANTAGES)
def test_equal_rewards_and_lone_members_have_no_advantage(name):
    scores = of_rewards(np.array([0.1 + 0.2, 0.3, 5.0]), np.array([0, 0, 1]))
    assert ADVANTAGES[name](scores).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", ADVANTAGES)
def test_no_rollouts_have_no_advantages(name):
    assert ADVANTAGES[name](of_rewards(np.zeros(0), np.zeros(0, dtype=int))).tolist() == []


def test_scores_that_are_not_finite_or_do_not_match_are_errors():
    with pytest.raises(ValueError, match="reward is not finite"):
        Scores(np.array([0.0, np.nan]), np.array([0, 0]))
    with pytest.raises(ValueError, match="a tool_gain is not finite"):
        Scores(np.zeros(2), np.zeros(2), {"tool_gain": np.array([0.0, np.inf])})
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        Scores(np.zeros(2), np.zeros(3, dtype=int))
    with pytest.raises(ValueError, match=r"answer has shape \(3,\)"):
        Scores(np.zeros(2), np.zeros(2), {"answer": np.zeros(3)})


def test_scores_are_split_into_the_rest_and_one_unweighted_term():
    scores = of_terms([1, 0], [0, 0], form=[0.5, 1.0])
    rest, alone = scores.split("format_anchor")
    assert rest.rewards.tolist() == [1.0, 0.0]
    assert alone.rewards.tolist() == [0.5, 1.0]
    assert decomposed(rest).tolist() == [1.0, -1.0]
    assert decomposed(alone).tolist() == [-1.0, 1.0]


def test_a_term_can_be_added_with_its_weight():
    scores = of_terms([1, 0], [0, 0]).with_term("kl", -0.5, np.array([4.0, 0.0]))
    assert scores.rewards.tolist() == [-1.0, 0.0]
    assert scores.part("kl").tolist() == [-2.0, 0.0]
    assert decomposed(scores).tolist() == [0.5, -0.5]


def test_zero_variance_is_told_per_rollout():
    rewards, groups = np.array([1.0, 1.0, 0.0, 1.0, 4.0]), np.array([0, 0, 1, 1, 2])
    assert zero_variance(rewards, groups).tolist() == [True, True, False, False, True]


def test_token_credit_puts_the_format_part_on_structural_tokens():
    structural = np.array([True, False, True])
    assert token_credit(0.5, 2.0, 0.25, structural).tolist() == [1.0, 0.5, 1.0]


def test_batch_normalisation_counts_every_trained_token():
    advantages = [np.array([1.0, 1.0, 1.0]), np.array([-3.0, 77.0])]
    masks = [np.ones(3, dtype=bool), np.array([True, False])]
    first, second = normalise_batch(advantages, masks, [0, 0])
    # tokens 1, 1, 1, -3: mean 0, std sqrt(3)
    np.testing.assert_allclose(first, [3**-0.5] * 3)
    assert second[0] == pytest.approx(-(3**0.5))


def test_batch_normalisation_leaves_groups_without_advantage_at_zero():
    advantages = [np.zeros(5), np.array([1.0, 3.0])]
    masks = [np.ones(5, dtype=bool), np.ones(2, dtype=bool)]
    flat, live = normalise_batch(advantages, masks, [0, 1])
    assert flat.tolist() == [0.0] * 5
    assert live.tolist() == [-1.0, 1.0]


def test_batch_normalisation_counts_an_average_member_of_a_live_group():
    """An advantage of 0 beside others says "average", not "no information"."""
    advantages = [np.array([0.0]), np.array([3.0]), np.array([3.0])]
    masks = [np.ones(1, dtype=bool)] * 3
    moved = normalise_batch(advantages, masks, [0, 0, 0])
    np.testing.assert_allclose(np.concatenate(moved), [-(2**0.5), 2**-0.5, 2**-0.5])


def test_batch_normalisation_of_nothing_or_of_a_constant_changes_nothing():
    assert normalise_batch([], [], []) == []
    (constant,) = normalise_batch([np.array([2.0, 2.0])], [np.ones(2, dtype=bool)], [0])
    assert constant.tolist() == [2.0, 2.0]

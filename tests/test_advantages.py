"""Advantages against values worked out by hand."""

import numpy as np
import pytest

from agents.advantages import (
    ADVANTAGES,
    centered,
    grpo,
    leave_one_out,
    normalise_batch,
    token_credit,
    zero_variance,
)

REWARDS = np.array([0.0, 1.0, 2.0, 3.0])
ONE_GROUP = np.zeros(4, dtype=int)


def test_grpo_divides_by_the_population_std():
    expected = [-1.341640786, -0.447213595, 0.447213595, 1.341640786]
    np.testing.assert_allclose(grpo(REWARDS, ONE_GROUP), expected, atol=1e-9)


def test_centered_only_subtracts_the_mean():
    assert centered(REWARDS, ONE_GROUP).tolist() == [-1.5, -0.5, 0.5, 1.5]


def test_leave_one_out_compares_with_the_other_members():
    expected = [-2.0, -2 / 3, 2 / 3, 2.0]
    np.testing.assert_allclose(leave_one_out(REWARDS, ONE_GROUP), expected)


@pytest.mark.parametrize("name", ADVANTAGES)
def test_groups_do_not_see_each_other(name):
    alone = ADVANTAGES[name](REWARDS, ONE_GROUP)
    interleaved = np.stack([REWARDS, 100 + 7 * REWARDS], axis=1).ravel()
    groups = np.tile([4, 9], 4)
    np.testing.assert_allclose(ADVANTAGES[name](interleaved, groups)[::2], alone, atol=1e-12)


@pytest.mark.parametrize("name", ADVANTAGES)
def test_equal_rewards_and_lone_members_have_no_advantage(name):
    rewards = np.array([0.1 + 0.2, 0.3, 5.0])
    assert ADVANTAGES[name](rewards, np.array([0, 0, 1])).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", ADVANTAGES)
def test_a_reward_that_is_not_finite_is_an_error(name):
    with pytest.raises(ValueError, match="not finite"):
        ADVANTAGES[name](np.array([0.0, np.nan]), np.array([0, 0]))


def test_rewards_and_groups_must_match():
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        grpo(np.zeros(2), np.zeros(3, dtype=int))


def test_zero_variance_is_told_per_rollout():
    rewards, groups = np.array([1.0, 1.0, 0.0, 1.0, 4.0]), np.array([0, 0, 1, 1, 2])
    assert zero_variance(rewards, groups).tolist() == [True, True, False, False, True]


def test_token_credit_puts_the_format_part_on_structural_tokens():
    structural = np.array([True, False, True])
    assert token_credit(0.5, 2.0, 0.25, structural).tolist() == [1.0, 0.5, 1.0]


def test_batch_normalisation_counts_every_trained_token():
    advantages = [np.array([1.0, 1.0, 1.0]), np.array([-3.0, 77.0])]
    masks = [np.ones(3, dtype=bool), np.array([True, False])]
    first, second = normalise_batch(advantages, masks)
    # tokens 1, 1, 1, -3: mean 0, std sqrt(3)
    np.testing.assert_allclose(first, [3**-0.5] * 3)
    assert second[0] == pytest.approx(-(3**0.5))


def test_batch_normalisation_leaves_sequences_without_advantage_at_zero():
    advantages = [np.zeros(5), np.array([1.0, 3.0])]
    masks = [np.ones(5, dtype=bool), np.ones(2, dtype=bool)]
    flat, live = normalise_batch(advantages, masks)
    assert flat.tolist() == [0.0] * 5
    assert live.tolist() == [-1.0, 1.0]


def test_batch_normalisation_of_nothing_or_of_a_constant_changes_nothing():
    assert normalise_batch([], []) == []
    (constant,) = normalise_batch([np.array([2.0, 2.0])], [np.ones(2, dtype=bool)])
    assert constant.tolist() == [2.0, 2.0]

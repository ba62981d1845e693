"""PARA-GRPO's own page: what is collected gets the advantages that the method says."""

from dataclasses import dataclass, field, fields, replace

import numpy as np
import pytest

from agents.algorithm.config import PARAGRPOConfig
from agents.algorithm.credit import check_credit, credit, trained_trajectories
from agents.base import Trajectory
from paravt_env.protocol import Role

WEIGHTS = {"answer": 1.0, "format_anchor": 0.5, "tool_gain": 1.0}
T, K, A = Role.tag, Role.think, Role.answer


@dataclass
class Scored:
    reward: float
    terms: dict = field(default_factory=dict)
    trajectories: tuple = ()
    executed: int = 0
    task_id: str = "t"


def trajectory(roles, kind="main", trained=None):
    n = len(roles)
    return Trajectory(
        prompt_ids=np.arange(3),
        branch_ids=np.arange(n),
        loss_mask=np.ones(n, dtype=bool) if trained is None else np.array(trained, dtype=bool),
        logprobs=np.zeros(n, dtype=np.float32),
        roles=np.array(roles, dtype=np.int8),
        kind=kind,
    )


def scored(answer, formatted=0.0, roles=(T, K, A), subagents=(), tool=0.0, executed=0):
    """A rollout whose reward is the weighted sum of its terms."""
    terms = {"answer": answer, "format_anchor": formatted, "tool_gain": tool}
    return Scored(
        executed=executed,
        reward=sum(WEIGHTS[name] * value for name, value in terms.items()),
        terms={**terms, "total": 99.0},
        trajectories=(trajectory(roles), *(trajectory(r, "subagent") for r in subagents)),
    )


def credited(groups, weights=WEIGHTS, divergence=None, **settings):
    config = PARAGRPOConfig(**{"batch_normalise": False, "group_size": 2, **settings})
    check_credit(config, weights)
    return credit(groups, config, weights, divergence)


def advantages(groups, **settings):
    return [a.tolist() for a in credited(groups, **settings).batch.advantages]


def test_a_batch_holds_every_trajectory_with_its_group_and_its_advantage():
    groups = [[scored(0.0), scored(1.0)]]
    batch = credited(groups).batch
    assert [a.tolist() for a in batch.advantages] == [[-1.0] * 3, [1.0] * 3]
    assert batch.groups == [0, 0]
    assert [t is r.trajectories[0] for t, r in zip(batch.trajectories, groups[0], strict=True)] == [
        True
    ] * 2
    assert batch.advantages[0].dtype == np.float32


def test_trajectory_credit_is_the_advantage_of_the_summed_reward():
    groups = [[scored(1.0, 0.0), scored(0.0, 1.0)]]  # rewards 1 and 0.5
    assert advantages(groups) == [[1.0] * 3, [-1.0] * 3]
    assert advantages(groups, advantage="centered") == [[0.25] * 3, [-0.25] * 3]


def test_token_credit_normalises_both_parts_and_lands_the_format_on_tags():
    groups = [[scored(1.0, 0.0), scored(0.0, 0.2)]]
    assert advantages(groups, credit="token") == [[0.5, 1.0, 1.0], [-0.5, -1.0, -1.0]]
    centered = advantages(groups, credit="token", advantage="centered")
    np.testing.assert_allclose(centered, [[0.45, 0.5, 0.5], [-0.45, -0.5, -0.5]], rtol=1e-6)


def test_token_credit_teaches_the_format_where_all_answers_are_equal():
    groups = [[scored(1.0, 0.0), scored(1.0, 1.0)]]
    assert advantages(groups, credit="token") == [[-0.5, 0.0, 0.0], [0.5, 0.0, 0.0]]


def test_sub_agents_get_the_advantage_of_their_rollout_unless_left_out():
    groups = [[scored(0.0, subagents=[(K, T)]), scored(1.0)]]
    assert advantages(groups) == [[-1.0] * 3, [-1.0] * 2, [1.0] * 3]
    assert advantages(groups, train_subagents=False) == [[-1.0] * 3, [1.0] * 3]


def test_groups_without_variance_have_no_advantage_and_are_counted():
    groups = [[scored(1.0), scored(1.0)], [scored(0.0), scored(1.0)]]
    both = credited(groups, batch_normalise=True)
    batch, metrics = both.batch, both.metrics
    assert [a.tolist() for a in batch.advantages] == [[0.0] * 3, [0.0] * 3, [-1.0] * 3, [1.0] * 3]
    assert metrics["groups/zero_variance"] == metrics["groups/no_advantage"] == 0.5


def test_batch_normalisation_counts_trained_tokens():
    long, short = scored(0.0, roles=(K,) * 3), scored(1.0, roles=(K,))
    # tokens -1, -1, -1, 1: mean -1/2, std sqrt(3)/2
    values = advantages([[long, short]], batch_normalise=True)
    np.testing.assert_allclose(values[0], [-(3**-0.5)] * 3, rtol=1e-6)
    np.testing.assert_allclose(values[1], [3**0.5], rtol=1e-6)


def test_rollouts_whose_video_failed_are_never_scored():
    failed = Scored(0.0)
    groups = [[failed, failed], [scored(0.0), scored(1.0), failed]]
    both = credited(groups)
    batch, metrics = both.batch, both.metrics
    assert [a[0] for a in batch.advantages] == [-1.0, 1.0]
    assert batch.groups == [1, 1]
    assert metrics == {
        "groups/collected": 2.0,
        "groups/unreadable": 1.0,
        "groups/zero_variance": 0.0,
        "groups/no_advantage": 0.0,
        "tokens/structural": 1 / 3,
        "tokens/format_credit": 1.0,
    }


@pytest.mark.parametrize("term", ["answer", "format_anchor"])
def test_a_reward_that_is_not_finite_names_its_task_and_term(term):
    broken = scored(**{"answer": 1.0, {"answer": "answer"}.get(term, "formatted"): np.nan})
    broken.task_id = "film 7"
    with pytest.raises(ValueError, match=rf"task 'film 7': its {term} is nan"):
        credited([[scored(0.0), broken]])
    whole = replace(scored(1.0), reward=np.inf, task_id="film 8")
    with pytest.raises(ValueError, match="task 'film 8': its reward is inf"):
        credited([[scored(0.0), whole]])


def test_nothing_but_failures_is_an_empty_batch():
    both = credited([[Scored(0.0), Scored(0.0)]])
    assert both.batch.trajectories == []
    assert both.metrics["groups/unreadable"] == 1.0


def test_defect_27_the_group_is_never_split():
    """Every scored member of a group enters its mean and std, whatever else is in the batch."""
    first = [scored(value) for value in (0.0, 1.0, 1.0, 1.0)]
    second = [scored(value) for value in (0.0, 0.0, 0.0, 1.0)]
    values = [a[0] for a in credited([first, second]).batch.advantages]
    np.testing.assert_allclose(values[:4], [-(3**0.5), *[3**-0.5] * 3], rtol=1e-6)
    np.testing.assert_allclose(values[4:], [*[-(3**-0.5)] * 3, 3**0.5], rtol=1e-6)


def test_the_share_of_tokens_that_carry_the_format_is_reported():
    groups = [[scored(0.0, roles=(T, K, A, T), subagents=[(K,)]), scored(1.0, roles=(T, K, T))]]
    groups[0][1].trajectories[0].loss_mask[0] = False
    for where, share in (("token", 3 / 7), ("trajectory", 1.0)):
        metrics = credited(groups, credit=where).metrics
        assert metrics["tokens/structural"] == 3 / 7
        assert metrics["tokens/format_credit"] == share


def test_decomposed_advantages_take_the_terms_of_the_preset():
    groups = [[scored(1.0, 0.0), scored(0.0, 0.2)]]  # answer 1, -1 and 0.5 * (-1, 1)
    assert advantages(groups, advantage="decomposed") == [[0.5] * 3, [-0.5] * 3]
    values = advantages(groups, advantage="decomposed", credit="token")
    assert values == [[0.5, 1.0, 1.0], [-0.5, -1.0, -1.0]]


def test_gated_advantages_and_their_threshold():
    groups = [[scored(0.6, tool=0.8), scored(0.5, tool=0.8), scored(0.0, tool=0.3)]]
    values = [a[0] for a in advantages(groups, advantage="gated", right_from=0.6)]
    np.testing.assert_allclose(values, standardised(1.4, 0.5, 0.0), rtol=1e-6)


def test_counterfactual_advantages_compare_rollouts_whose_calls_ran():
    """The third rollout's calls all failed: it saw as little as one that skipped."""
    groups = [[scored(1.0, tool=0.8, executed=2), scored(0.5), scored(0.0, tool=0.1)]]
    gain = 0.75 * (2 / 3) / (2 / 3 + 2)
    values = [a[0] for a in advantages(groups, advantage="counterfactual", shrinkage=2.0)]
    np.testing.assert_allclose(values, standardised(1 + gain, 0.5, 0.0), rtol=1e-6)


def standardised(*values):
    return (np.array(values) - np.mean(values)) / np.std(values)


def test_the_divergence_in_the_reward_is_summed_over_what_is_trained():
    groups = [[scored(1.0, subagents=[(K, K)]), scored(0.5), scored(0.0, roles=(K,))]]
    settings = {"kl_in": "reward", "kl_coefficient": 0.1, "advantage": "centered"}

    def of_trained(**more):
        trained = trained_trajectories(groups, PARAGRPOConfig(**settings, **more))
        lengths = np.array([float(len(t.branch_ids)) for t in trained])
        return trained, credited(groups, divergence=lengths, **settings, **more)

    trained, both = of_trained()
    # rewards 1, 0.5, 0 with the mean 0.5; divergences 5, 3, 1, of which those of others are 2, 3, 4
    values = [a[0] for a in both.batch.advantages]
    np.testing.assert_allclose(values, [0.2, 0.2, 0.0, -0.2], atol=1e-7)
    assert [t.kind for t in trained] == ["main", "subagent", "main", "main"]
    assert both.batch.trajectories == trained
    assert both.metrics["kl_of_rollout"] == 3.0
    assert of_trained(train_subagents=False)[1].metrics["kl_of_rollout"] == pytest.approx(7 / 3)


def test_the_divergence_in_the_loss_leaves_the_rewards_alone():
    groups = [[scored(0.0), scored(1.0)]]
    assert not PARAGRPOConfig(kl_coefficient=0.1).kl_in_reward, "nobody computes it"
    batch = credited(groups, divergence=np.array([9.0, 0.0]), kl_coefficient=0.1).batch
    assert [a[0] for a in batch.advantages] == [-1.0, 1.0]


def test_the_divergence_in_the_reward_needs_a_reference():
    with pytest.raises(ValueError, match="kl_in=reward needs"):
        credited([[scored(0.0), scored(1.0)]], kl_in="reward", kl_coefficient=0.1)


@pytest.mark.parametrize("advantage", ["gated", "counterfactual"])
def test_advantages_about_the_tool_need_the_tool_term(advantage):
    with pytest.raises(ValueError, match="tool_gain"):
        credited([], advantage=advantage, weights={**WEIGHTS, "tool_gain": 0.0})


def test_token_credit_needs_the_format_term():
    with pytest.raises(ValueError, match="format_anchor"):
        credited([], credit="token", weights={"answer": 1.0})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"advantage": "gae"}, "choose from grpo, centered, leave_one_out"),
        ({"loss": "ppo"}, "choose from .*clipped, gspo, cispo, decoupled, tis"),
        ({"aggregation": "mean"}, "choose from token_mean"),
        ({"credit": "word"}, "choose from trajectory, token"),
        ({"group_size": 1}, "at least 2"),
        ({"groups": 0}, "at least 1"),
        ({"groups": 2, "minibatches": 3}, "minibatches"),
        ({"clip_low": 1.0}, "clip_low"),
        ({"kl_coefficient": -0.1}, "kl_coefficient"),
        ({"kl_in": "sampler"}, "choose from loss, reward"),
        ({"ratio_cap": 0.0}, "ratio_cap"),
        ({"shrinkage": -1.0}, "shrinkage"),
        ({"right_from": 1.5}, "at most 1"),
    ],
)
def test_settings_out_of_range_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        PARAGRPOConfig(**settings)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "name", [one.name for one in fields(PARAGRPOConfig) if isinstance(one.default, float)]
)
def test_numbers_that_are_not_finite_are_errors(name, value):
    with pytest.raises(ValueError, match=f"{name} must be finite"):
        PARAGRPOConfig(**{name: value})

"""What each number of `metrics.jsonl` means, in one sentence: the glossary of the docs.

Read by the docs site (`make docs`) and by whatever shows a metric. A name in capitals stands for
something that the run names itself: a reward term, a status, a frame budget K. `pytest
tests/docs/test_glossary.py` trains a few tokens and finds every number that was logged in here.
"""

from __future__ import annotations

import re

ROLLOUTS = {
    "rollouts": "Rollouts that were played for this step.",
    "errors": "Rollouts that could not be scored (video, agent, judge or server failed).",
    "reward": "Mean reward of the scored rollouts.",
    "reward/TERM": "Mean unweighted value of a reward term over the scored rollouts.",
    "accuracy": "Mean of the answer term; a rollout that could not be scored counts as 0.",
    "accuracy/K=K": "The same for rollouts with K overview frames.",
    "compliance": "Share of rollouts whose text is a closed thought, then calls or an answer tag.",
    "calls": "Crop calls per rollout, whether or not they ran.",
    "calls/K=K": "The same for rollouts with K overview frames.",
    "executed_calls": "Crop calls per rollout that ran (status `ok`).",
    "called": "Share of rollouts with at least one call.",
    "parallel_calls": "Most calls in one turn, averaged over the rollouts that called.",
    "frames_seen": "Overview and crop frames that the environment showed per rollout.",
    "evidence_recall": "Share of the gold evidence that crops covered, where there is gold.",
    "tng/K=K": "Tool Necessity Gap at K: mean score of rollouts that called, minus that of others.",
    "rollouts/set=SET": "Rollouts whose task is of this set of a mixture (`env.tasks=mix`).",
    "accuracy/set=SET": "Accuracy on this set of the mixture.",
    "compliance/set=SET": "Share of this set's rollouts that obey the protocol.",
    "calls/set=SET": "Crop calls per rollout on this set.",
    "behaviour/KIND": "Share of rollouts whose first turn has this form and calls, or does not.",
    "stop/REASON": "Share of rollouts that ended for this reason.",
    "untagged": "Share of rollouts whose answer was read from text without an `<answer>` tag.",
    "lapses/LAPSE": "Calls per rollout that were repaired, or that named another video, by kind.",
    "completion_tokens": "Mean length of a turn in tokens.",
    "completion_tokens/longest": "Tokens of the longest turn.",
    "turns/cut": "Share of turns that the token limit ended.",
}
"""Means over every rollout that was played for the step."""

GROUPS = {
    "groups/collected": "Groups in the update.",
    "groups/unreadable": "Groups of the update without any scored rollout.",
    "groups/zero_variance": "Share of groups whose rewards are all equal.",
    "groups/no_advantage": "Share of groups in which no token has an advantage.",
    "groups/acted/TERM": "Share of groups in which this reward term differs between rollouts.",
    "tokens/structural": "Share of trained tokens that are tags or the stop token.",
    "tokens/format_credit": "Share of trained tokens that carry the format term's advantage.",
    "kl_of_rollout": "Mean log pi - log pi_ref summed over a rollout (`algorithm.kl_in=reward`).",
    "selection/rounds": "Rounds of playing until the selection had enough groups.",
    "selection/groups_played": "Groups that were played.",
    "selection/groups_kept": "Groups that the update uses.",
    "selection/groups_missing": "Groups that the update lacks.",
    "selection/groups_dropped/REASON": "Groups left out, by reason.",
    "selection/rollouts_played": "Rollouts that were played.",
    "selection/rollouts_kept": "Rollouts that the update uses.",
    "selection/rollouts_dropped/REASON": "Rollouts left out of their group, by reason.",
    "selection/tasks_kept": "Tasks that the difficulty filter keeps.",
    "selection/tasks_dropped/REASON": "Tasks that the difficulty filter leaves out, by reason.",
}
"""What is trained: groups, advantages, selection."""

UPDATE = {
    "loss": "Loss of an optimizer step, averaged over the steps of the batch.",
    "entropy": "Mean entropy of the policy per trained token, in nats.",
    "kl": "Mean k3 estimate of the divergence from the starting policy per trained token.",
    "grad_norm": "Gradient norm before clipping.",
    "learning_rate": "Learning rate of the last optimizer step, averaged over the batch's steps.",
    "optimizer_steps": "Optimizer steps of this batch.",
    "optimizer_steps_skipped": "Optimizer steps skipped because of their gradient (`faults`).",
    "trained_tokens": "Tokens with a loss.",
    "samples": "Trajectories of the batch, main conversations and readings.",
    "samples_without_advantage": "Those that are left out because their advantage is 0.",
    "micro_batches": "Forward and backward passes.",
    "packed_tokens": "Tokens of the packed batch, each shared prompt once.",
    "padded_tokens": "The same with padding.",
    "repeated_tokens": "Tokens of the batch if each trajectory repeated its prompt.",
    "ratio": "Mean probability ratio of the policy and the proximal policy.",
    "clip_fraction": "Share of tokens on which the clip acts.",
    "behaviour_kl": "Mean log pi_behave - log pi of the trained tokens.",
    "behaviour_mismatch": "Mean absolute difference of these two log-probabilities.",
    "behaviour_mismatch_max": "The largest one.",
    "behaviour_weight": "Mean correction weight pi_prox / pi_behave (`decoupled`, `tis`).",
    "behaviour_dropped": "Share of tokens that `decoupled` drops.",
    "behaviour_truncated": "Share of tokens whose weight `tis` truncates.",
    "staleness/mean": "Updates between the weights that sampled a token and this one, mean.",
    "staleness/max": "The largest one.",
}
"""The policy update."""

COST = {
    "frames_decoded": "Frames that were decoded from video files.",
    "frames_encoded_sampling": "Frames that went through the vision tower while sampling.",
    "frames_encoded": "Frames that went through the vision tower in the update.",
    "tokens_sampled": "Tokens that the policy sampled.",
    "time/step": "Seconds of the whole step.",
    "time/rollouts_kept": "Seconds of keeping rollouts for `paravt view`.",
    "rollouts_kept/bytes": "Bytes on disk of the rollouts that the step kept.",
    "time/collect": "Seconds until the batch was there.",
    "time/update": "Seconds of the update.",
    "time/video": "Seconds of decoding, of all lanes together.",
    "time/encode": "Seconds of the vision tower while sampling.",
    "time/prefill": "Seconds of computing prompts while sampling.",
    "time/decode": "Seconds of sampling tokens.",
    "time/forward": "Seconds of the forward passes of the update.",
    "time/backward": "Seconds of the backward passes of the update.",
    "time/vision": "Seconds of the vision tower in the update.",
    "time/proximal": "Seconds of computing the proximal policy's log-probabilities.",
    "time/publish": "Seconds of gathering the weights of several processes.",
    "time/diagnostics": "Seconds of the term diagnostics.",
    "time/waiting_for_rollouts": "Seconds that the learner waited for a batch.",
    "time/workers_waiting": "Seconds that the rollout workers waited for newer weights.",
    "judge/judged": "Answers that the LLM judge graded.",
    "judge/requests": "Requests to the LLM judge.",
    "judge/failures": "Answers that stayed without a verdict.",
    "judge/repeated": "Answers whose verdict was known already.",
    "judge/prompt_tokens": "Prompt tokens of the judge's requests.",
    "judge/completion_tokens": "Completion tokens of the judge's replies.",
    "judge/cost": "Cost of the judge, in the currency of the configured prices.",
    "judge/seconds": "Seconds of the judge's requests, added up.",
}
"""Work and time of the step; totals are sums over processes, seconds those of the slowest."""

VALIDATION = {
    "validation/accuracy": "Accuracy on `run.eval_tasks` tasks of the split `run.eval_split`.",
    "validation/accuracy/set=SET": "The same on one set, where `run.eval_set` is a mixture.",
    "validation/compliance": "Share of those rollouts that obey the protocol.",
    "validation/calls": "Calls per rollout there.",
}
"""Measured every `run.eval_every` steps."""

DIAGNOSTICS = {
    "diagnostics/share/TERM": "Covariance of a weighted term with the reward, over its variance.",
    "diagnostics/scale/TERM": "Standard deviation of a term over that of the reward.",
    "diagnostics/correlation/PAIR": "Correlation of two terms inside a group.",
    "diagnostics/zero_variance/TERM": "Share of groups in which the term is constant.",
    "diagnostics/distinct/KIND": "Different advantages in a group, of the sum or term by term.",
    "diagnostics/identity_error": "Rounding error of the decomposition of the advantage.",
    "diagnostics/gap": "Bound on the mean difference of joint and decomposed advantages.",
    "diagnostics/cosine/PAIR": "Cosine of the gradients of two terms.",
    "diagnostics/grad_norm/TERM": "Gradient norm of a single term.",
    "diagnostics/grad_product": "Product of the gradients of two halves of the probe.",
    "diagnostics/grad_square": "Squared norm of their mean.",
    "diagnostics/drift/KIND": "Predicted push on the share of a kind of first turn.",
    "diagnostics/advice": "0 joint, 1 decomposed, 2 gated: a rule of thumb.",
}
"""With `diagnostics.every`."""

SECTIONS = {
    "Rollouts": ROLLOUTS,
    "Groups and selection": GROUPS,
    "Update": UPDATE,
    "Work and time": COST,
    "Validation": VALIDATION,
    "Term diagnostics": DIAGNOSTICS,
}
"""All of them, by the heading that the docs give them."""


def meaning(name: str) -> str | None:
    """The sentence of a logged metric; None if there is none.

    >>> meaning("accuracy/K=8")
    'The same for rollouts with K overview frames.'
    >>> meaning("stop/answered"), meaning("no_such_metric")
    ('Share of rollouts that ended for this reason.', None)
    """
    for section in SECTIONS.values():
        for pattern, sentence in section.items():
            if name == pattern or _pattern(pattern).fullmatch(name):
                return sentence
    return None


def _pattern(name: str) -> re.Pattern[str]:
    """A name whose last word in capitals stands for anything, after `set=` too; `K=K` for a number.

    >>> bool(_pattern("reward/TERM").fullmatch("reward/tool_gain"))
    True
    """
    if name.endswith("/K=K"):
        return re.compile(re.escape(name[:-1]) + r"\d+")
    if name.endswith("/set=SET"):
        return re.compile(re.escape(name[:-3]) + ".+")
    head, _, last = name.rpartition("/")
    return re.compile(re.escape(f"{head}/") + ".+" if last.isupper() else re.escape(name))

"""The tool term, R_tool: did looking closer help? One function for each published answer.

From the crops' status alone, so that a forged response, an unknown tool or a call that failed earns
nothing of what an executed crop earns. The counterfactual gain needs the whole group, so it is an
advantage, not a term.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from paravt_env.common.names import known_name
from paravt_env.rewards.terms.base import check_switch
from paravt_env.rewards.terms.distinct import distinct_code
from paravt_env.rewards.terms.evidence import (
    distinct_windows,
    evidence_iou,
    evidence_recall,
    evidence_yield,
    unseen_evidence,
)
from paravt_env.rewards.transcript import Transcript

CALLED, EXECUTED, SUCCEEDED = 0.1, 0.3, 0.5
EACH_CALL = 0.1
MEASURES = ("iou", "recall")


@dataclass(frozen=True)
class ToolGain:
    """What the calls were worth.

    Attributes:
        gain: How it is computed: a key of `GAINS`.
        evidence: What the evidence gain measures: `iou` or `recall`.
        success_threshold: The answer value from which the graduated gain pays for success, in
            (0, 1]. Where the value is an overlap of tokens, the answer must say more than this
            share of the gold one, and nothing beside.
        pay_attempts: Let a readable call that did not run earn what the paper pays for a parseable
            one, 0.1 of the graduated gain. Off, only a call that ran earns anything.
    """

    gain: str = "graduated"
    evidence: str = "iou"
    success_threshold: float = 0.5
    pay_attempts: bool = False

    def __post_init__(self) -> None:
        """Check names, types and ranges."""
        known_name("gain", self.gain, GAINS)
        known_name("evidence", self.evidence, MEASURES)
        check_switch("pay_attempts", self.pay_attempts)
        threshold = self.success_threshold
        if isinstance(threshold, bool) or not isinstance(threshold, int | float):
            raise ValueError(f"success_threshold must be a number, not {threshold!r}")
        if not 0 < threshold <= 1:
            raise ValueError(f"success_threshold must be in (0, 1], not {threshold}")

    def __call__(self, transcript: Transcript) -> float:
        """R_tool, computed as `gain` names."""
        return GAINS[self.gain](transcript, self)


def graduated(transcript: Transcript, options: ToolGain) -> float:
    """ParaVT (arXiv 2605.20342): 0 without a call, 0.3 if one ran, 0.5 more for success.

    Two differences. The paper pays 0.1 for a parseable call; here a call that did not run earns
    nothing unless `options.pay_attempts` (defects 12 and 18). The paper adds 0.5 whenever R_acc >
    0; here it takes an executed crop and an answer value of at least `options.success_threshold`:
    the same for values in {0, 0.5, 1}, and neither a tiny F1 nor the IoU of "the whole video"
    unlocks it (defect 12). An open answer compared by tokens must say more than half of the gold
    one and nothing else: naming three words of which one is right, or the one word that all answers
    share, is no success.
    """
    if not transcript.executed:
        return CALLED if options.pay_attempts and transcript.called else 0.0
    return EXECUTED + SUCCEEDED * _succeeded(transcript, options)


def _succeeded(transcript: Transcript, options: ToolGain) -> bool:
    correct, least = _correct(transcript), options.success_threshold
    overlap = transcript.overlap
    return correct >= least if overlap is None else correct == 1.0 or overlap > least


def necessity(transcript: Transcript, options: ToolGain) -> float:
    """`graduated`, for what the crops made knowable: ours.

    The counterfactual is the same episode without its crops: what could be known then is the gold
    evidence that a frame of the overview shows. So the pay of an executed call and of its success,
    0.3 and 0.5, is multiplied by the share of the other gold seconds that the crops cover. A call
    earns nothing where the overview shows all of the evidence, nor where it looks elsewhere: a
    policy that calls blindly earns its part of the video's seconds. A task without gold spans is
    worth 0 to every rollout; there the advantages `gated` and `counterfactual` compare rollouts.
    """
    unseen = unseen_evidence(transcript.task.evidence, transcript.overview)
    share = evidence_recall(unseen, transcript.windows)
    if math.isnan(share):
        return 0.0
    return share * (EXECUTED + SUCCEEDED * _succeeded(transcript, options))


def accumulative(transcript: Transcript, options: ToolGain) -> float:
    """PyVision-RL (arXiv 2602.20739): 0.1 for each executed call of a fully right answer.

    The released code also pays for a call that raised an error; here it earns nothing (defect 18).
    Calls count that differ: crops that share seconds are one, and so is code that says or shows
    the same as other code. Looking again at what was seen is not paid.
    """
    crops = [window for turn in transcript.turns for window in turn.cropped]
    runs = [run for turn in transcript.turns for run in turn.code]
    distinct = distinct_windows(crops) + distinct_code(runs)
    return EACH_CALL * distinct * (_correct(transcript) == 1.0)


def evidence(transcript: Transcript, options: ToolGain) -> float:
    """How the crops that ran overlap the task's gold spans, in [0, 1]; the answer plays no part.

    `iou` is LongVT's time reward (arXiv 2511.20785), the temporal IoU of the last crop with the
    gold segment; where a turn crops several windows, of the last cropping turn's seconds with the
    gold seconds. `recall` is the covered share of the gold seconds, over all crops, divided by the
    seconds watched where they are more than the gold ones: to watch everything finds everything. A
    task without gold spans is worth 0 to every rollout.
    """
    if options.evidence == "recall":
        value = evidence_yield(transcript.task.evidence, transcript.windows)
    else:
        cropping = (turn.windows for turn in reversed(transcript.turns) if turn.windows)
        value = evidence_iou(transcript.task.evidence, next(cropping, []))
    return 0.0 if math.isnan(value) else min(1.0, value)


def _correct(transcript: Transcript) -> float:
    if transcript.correct is None:
        raise ValueError("the answer is not valued yet: the term `answer` comes first")
    return transcript.correct


GAINS: dict[str, Callable[[Transcript, ToolGain], float]] = {
    "graduated": graduated,
    "accumulative": accumulative,
    "evidence": evidence,
    "necessity": necessity,
}

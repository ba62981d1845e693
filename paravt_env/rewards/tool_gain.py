"""The tool term, R_tool of arXiv 2605.20342: did looking closer help?

From the crops' status alone, so that a forged response, an unknown tool or a call that failed earns
nothing of what an executed crop earns.
"""

from __future__ import annotations

from paravt_env.rewards.answer import answer
from paravt_env.rewards.options import RewardOptions
from paravt_env.rewards.transcript import Transcript

CALLED, EXECUTED, SUCCEEDED = 0.1, 0.3, 0.5


def tool_gain(transcript: Transcript, options: RewardOptions) -> float:
    """0 without a call, 0.1 for a readable one, 0.3 if one ran, and then 0.5 more for success.

    The paper adds 0.5 whenever R_acc > 0. Here it takes an executed crop and an answer value of at
    least `options.success_threshold`: the same for values in {0, 0.5, 1}, and neither a tiny F1 nor
    the IoU of "the whole video" unlocks it.
    """
    if not transcript.executed:
        return CALLED if transcript.called else 0.0
    correct = answer(transcript, options) if transcript.correct is None else transcript.correct
    return EXECUTED + SUCCEEDED * (correct >= options.success_threshold)

"""Format compliance f: one rule for every recipe, so that their curves compare.

Logged beside the reward, never part of it.
"""

from __future__ import annotations

import re

from paravt_env.protocol import ParsedCompletion, Role
from paravt_env.protocol.tags import ANSWER, CALL, CODE, PYTHON, THINK
from paravt_env.rewards.transcript import Transcript

_END_OF_TURN = re.compile(r"\s*(?:<\|(?:im_end|endoftext|eot_id)\|>\s*)*")


def compliance(transcript: Transcript) -> bool:
    """Whether every turn has exactly the form that was asked for.

    A turn is one closed thought with a letter or digit in it, then either well-formed calls or one
    closed, non-empty answer, and nothing else but white space and the end of turn that some servers
    leave in the text; the last turn answers and the others call. A call that had to be repaired to
    be read is not well-formed. An agent that writes no completion does not comply.
    """
    last = len(transcript.turns) - 1
    return last >= 0 and all(
        turn.parsed is not None and turn_complies(turn.parsed, answers=index == last)
        for index, turn in enumerate(transcript.turns)
    )


def turn_complies(completion: ParsedCompletion, answers: bool) -> bool:
    """Whether one turn has exactly the form that was asked for.

    Args:
        completion: What was written.
        answers: Whether the turn is to answer; otherwise it is to call.
    """
    blocks = completion.blocks
    if len(blocks) < 2 or not completion.balanced or blocks[0].name != THINK:
        return False
    for start, end, role in completion.roles():
        if role == Role.text and not _END_OF_TURN.fullmatch(completion.text, start, end):
            return False
    if not any(map(str.isalnum, blocks[0].content)):
        return False
    if answers:
        return len(blocks) == 2 and blocks[1].name == ANSWER and bool(blocks[1].content)
    named = all(block.name in (CALL, CODE, PYTHON) for block in blocks[1:])
    return named and all(not call.error and not call.repairs for call in completion.calls)

"""The format term with the exploration anchor, R_fmt + lambda * R_anchor of arXiv 2605.20342.

Scored once, over the whole transcript, from the parsed structure. The published formula is for one
text; over turns, each bonus for a thought must be earned by **every** turn, each bonus for the
answer by the last one, and a penalty by any one turn is paid once. So a well-formed rollout of any
length scores as published, and a further turn, tag or repeat adds nothing:

- A thought counts if it is the turn's first block, closed, and its words (letters and digits, a
  space between two) are at least `THOUGHT_CHARS` long: ten dots are no thought. The forced prefix
  belongs to the text that is scored.
- The call bonus needs a call that ran. The published one is for any parseable call, so that a call
  of nothing pays (defects 12 and 18); `pay_attempts` pays for a readable, allowed one too.
- An agent that writes no completion has no form: 0. A turn in which a model wrote nothing is a turn
  of that form, and costs what it lacks.

`binary` is the format term of LongVT (arXiv 2511.20785) and LongVILA-R1 (arXiv 2507.07966).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from paravt_env.common.names import known_name
from paravt_env.protocol import ParsedCompletion, parse
from paravt_env.protocol.tags import THINK
from paravt_env.rewards.compliance import compliance
from paravt_env.rewards.terms.base import check_switch
from paravt_env.rewards.transcript import Transcript

THOUGHT_CHARS = 10
_WORD = re.compile(r"[^\W_]+")
ANCHOR_SCALE = 0.5  # lambda
CLOSED_THOUGHT, WHOLE_FLOW, UNCLOSED_THOUGHT = 0.4, 0.3, -0.3  # R_anchor
THOUGHT_BEFORE_CALL = 0.3
BALANCED = 0.1


@dataclass(frozen=True)
class FormatAnchor:
    """The form of the completions, at most 1.

    Attributes:
        form: How it is computed: a key of `FORMS`.
        anchor: Whether the anchored form includes the bonus and penalty on `<think>`.
        unclosed_penalty: Whether the anchored form charges for a thought that is never closed.
        rescale: Divide the anchored form by its largest value instead of capping it at 1, so that a
            well-formed answer with a call ranks above one without.
        answer_suffix: The published weights for prompts that ask for the `<answer>` tag.
        pay_attempts: Let a readable call that did not run earn what the paper pays for a parseable
            one: 0.3 of the anchored form, and a calling turn of the binary one. Off, only a call
            that ran earns anything.
    """

    form: str = "anchored"
    anchor: bool = True
    unclosed_penalty: bool = True
    rescale: bool = False
    answer_suffix: bool = True
    pay_attempts: bool = False

    def __post_init__(self) -> None:
        """Check names and types."""
        known_name("form", self.form, FORMS)
        check_switch("anchor", self.anchor)
        check_switch("unclosed_penalty", self.unclosed_penalty)
        check_switch("rescale", self.rescale)
        check_switch("answer_suffix", self.answer_suffix)
        check_switch("pay_attempts", self.pay_attempts)

    def __call__(self, transcript: Transcript) -> float:
        """R_fmt, in the form that `form` names."""
        return FORMS[self.form](transcript, self)


def binary(transcript: Transcript, options: FormatAnchor) -> float:
    """1 for a rollout of exactly the form that was asked for (`compliance`), else 0.

    Every turn before the answer must also hold a call that ran, or a call of nothing would make a
    turn without one well-formed (defect 18).
    """
    turns = transcript.turns[:-1]
    looked = options.pay_attempts or all(turn.executed for turn in turns)
    return float(looked and compliance(transcript))


def anchored(transcript: Transcript, options: FormatAnchor) -> float:
    """R_fmt + lambda * R_anchor, at most 1.

    Well-formed rollouts reach 1.15 without and 1.45 with a call before the cap; `options.rescale`
    divides by that maximum instead. A thought that is never closed costs 0.15.
    """
    parsed = _written(transcript)
    if not parsed:
        return 0.0
    last, tagged = parsed[-1].answers, bool(transcript.answer) and not transcript.untagged
    value = _formula(
        options,
        thinks=all(map(thinks_first, parsed)),
        unclosed=options.unclosed_penalty
        and any(not block.closed for completion in parsed for block in completion.thoughts),
        answers=tagged or any(b.content and not b.closed for b in last),
        closes_answer=tagged,
        calls=transcript.called if options.pay_attempts else transcript.executed > 0,
        balanced=all(completion.balanced for completion in parsed),
    )
    if not options.rescale:
        return min(1.0, value)
    return value / _formula(options, True, False, True, True, True, True)


def _written(transcript: Transcript) -> list[ParsedCompletion]:
    """The completion of every turn, an empty one too; none where a turn acted without writing."""
    turns = transcript.turns
    if all(turn.parsed is None for turn in turns):
        return []
    silent = any(turn.parsed is None and turn.crops for turn in turns)
    if silent or (transcript.answer and turns[-1].parsed is None):
        return []
    return [parse("") if turn.parsed is None else turn.parsed for turn in turns]


def thinks_first(completion: ParsedCompletion) -> bool:
    """Whether the turn's first block is a closed thought of sufficient length."""
    first = completion.blocks[0] if completion.blocks else None
    if first is None or first.name != THINK or not first.closed:
        return False
    return len(" ".join(_WORD.findall(first.content))) >= THOUGHT_CHARS


def _formula(
    options: FormatAnchor,
    thinks: bool,
    unclosed: bool,
    answers: bool,
    closes_answer: bool,
    calls: bool,
    balanced: bool,
) -> float:
    thought, answer, closing = (0.2, 0.3, 0.2) if options.answer_suffix else (0.3, 0.2, 0.1)
    value = thought * thinks + answer * answers + closing * closes_answer
    if options.anchor:
        flow = thinks and closes_answer
        bonus = CLOSED_THOUGHT * thinks + WHOLE_FLOW * flow + UNCLOSED_THOUGHT * unclosed
        value += ANCHOR_SCALE * bonus
    value += THOUGHT_BEFORE_CALL * (thinks and calls)
    return value + BALANCED * (value > 0 and balanced)


FORMS: dict[str, Callable[[Transcript, FormatAnchor], float]] = {
    "anchored": anchored,
    "binary": binary,
}

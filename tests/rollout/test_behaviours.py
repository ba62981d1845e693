"""What rollouts do at their first turn, and its shares in the log."""

from dataclasses import dataclass

import pytest

from train.rollout.behaviours import behaviour, shares

CALL = '<tool_call>{"name": "crop_video", "arguments": {"start": 1, "end": 2}}</tool_call>'
THOUGHT = "<think>look</think>"


@dataclass
class Row:
    turns: tuple
    error: str = ""


def row(*texts, calls=0, error=""):
    turns = [{"completion": text, "crops": []} for text in texts]
    turns[0]["crops"] = [{"status": "ok"}] * calls
    return Row(tuple(turns), error)


@pytest.mark.parametrize(
    ("played", "name"),
    [
        (row(THOUGHT + CALL, "star", calls=1), "structured_calls"),
        (row(THOUGHT + "<answer>B</answer>"), "structured_skips"),
        (row("look " + CALL, THOUGHT + "<answer>B</answer>", calls=1), "native_calls"),
        (row("<think>look " + CALL), "native_skips"),  # a call inside a thought is none
        (row(THOUGHT + "B"), "native_skips"),
        (row("", THOUGHT + "<answer>B</answer>"), "native_skips"),
        (row("", ""), ""),  # an agent that writes nothing has no form
        (row(THOUGHT + CALL, calls=1, error="no video"), ""),
        (Row(()), ""),
    ],
)
def test_the_first_turn_is_what_counts(played, name):
    assert behaviour(played) == name


def test_shares_are_of_those_that_wrote():
    rows = [row("B"), row("B"), row(THOUGHT + CALL, calls=1), row("")]
    assert shares(rows) == {
        "behaviour/structured_calls": 1 / 3,
        "behaviour/structured_skips": 0.0,
        "behaviour/native_calls": 0.0,
        "behaviour/native_skips": 2 / 3,
    }
    assert shares([row("")]) == {}

"""Token credit reaches the tags that are missing: the tokens that stand where they were due."""

from dataclasses import dataclass

import numpy as np
import pytest

from agents.algorithm.config import PARAGRPOConfig
from agents.algorithm.credit import credit
from agents.base import Trajectory
from agents.text.context import token_roles
from agents.text.due import due_tokens
from paravt_env.protocol import Role, parse

STOP = "<|im_end|>"
WEIGHTS = {"answer": 1.0, "format_anchor": 0.5}
JSON = '{"name": "crop_video", "arguments": {"start": 1, "end": 2}}'


def tokens(*pieces):
    """The trajectory of one turn, a token a piece; a last `STOP` is the stop token."""
    written = pieces[:-1] if pieces[-1] == STOP else pieces
    parsed, ends = parse("".join(written)), np.cumsum([len(one) for one in written]).tolist()
    n = len(pieces)
    roles = token_roles(parsed, ends) + [Role.tag] * (n - len(written))
    return Trajectory(
        prompt_ids=np.arange(3),
        branch_ids=np.arange(n),
        loss_mask=np.ones(n, bool),
        logprobs=np.zeros(n, np.float32),
        roles=np.array(roles, np.int8),
        due=np.array(due_tokens(parsed, ends, n), bool),
    )


@dataclass
class Scored:
    trajectories: tuple
    terms: dict
    task_id: str = "t"
    executed: int = 0

    @property
    def reward(self):
        return sum(WEIGHTS[name] * value for name, value in self.terms.items())


def credited(*pieces, where="token"):
    """Advantages of a right answer without its form (format 0) beside a wrong one with it."""
    ours = Scored((tokens(*pieces),), {"answer": 1.0, "format_anchor": 0.0})
    other = Scored(
        (tokens("<think>", "x", "</think>", STOP),), {"answer": 0.0, "format_anchor": 1.0}
    )
    config = PARAGRPOConfig(batch_normalise=False, group_size=2, credit=where)
    return credit([[ours, other]], config, WEIGHTS).batch.advantages[0].tolist()


@pytest.mark.parametrize(
    ("pieces", "values"),
    [
        # its form: every tag and the stop token carry 1 - 0.5
        (
            ("<think>", "so", "</think>", "<answer>", "B", "</answer>", STOP),
            [0.5, 1, 0.5, 0.5, 1, 0.5, 0.5],
        ),
        # no thought was opened: the token in its place
        (
            ("look", " 1", "\n", "<tool_call>", JSON, "</tool_call>", STOP),
            [0.5, 1, 1, 0.5, 1, 0.5, 0.5],
        ),
        # the thought never closes: the answer's first token, and the stop token
        (("<think>", "so", "\n", "st", "ar", STOP), [0.5, 1, 1, 0.5, 1, 0.5]),
        # nothing opens the answer
        (("<think>", "so", "</think>", "\n", "B", STOP), [0.5, 1, 0.5, 1, 0.5, 0.5]),
        # neither, and no tag at all
        (("so", "\n", "B", STOP), [0.5, 1, 0.5, 0.5]),
        # a limit cut the thought: no token stands at its end
        (("<think>", "so", " it"), [0.5, 1, 1]),
    ],
)
def test_the_format_lands_on_tags_and_where_they_were_due(pieces, values):
    assert credited(*pieces) == values


def test_trajectory_credit_asks_for_no_place():
    assert credited("so", "\n", "B", STOP, where="trajectory") == [1.0] * 4


def test_a_token_that_holds_the_character_is_the_one():
    parsed = parse("<think>so</think> it is")
    assert due_tokens(parsed, [7, 9, 17, 21, 23], 6) == [False, False, False, True, False, True]


def test_an_agent_that_says_nothing_has_its_tags():
    one = tokens("<think>", "so", STOP)
    silent = Trajectory(one.prompt_ids, one.branch_ids, one.loss_mask, one.logprobs, one.roles)
    assert silent.structural.tolist() == [True, False, True]
    assert tokens("so", "\n", "B").structural.tolist() == [True, False, True]

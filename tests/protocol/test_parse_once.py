"""A completion is parsed once a turn, although agent and environment both need its structure."""

from __future__ import annotations

import numpy as np
import pytest
from support.parses import count_parses

from agents.base import Decision
from agents.config import AgentConfig, Limits
from agents.text.conversation import ConversationAgent, Sampled
from paravt_env.protocol import action_from_completion, parse, render_completion
from paravt_env.protocol.parser import KEPT_CHARS
from paravt_env.wrappers import CompletionAction, VectorCompletionAction
from train.rollout.play import Start, play

CALLS = render_completion("Both ends, please, of 1.", [(10.0, 12.0), (20.0, 22.0)])
ANSWER = render_completion("It is clear now, says 1.", [], "B")


@pytest.fixture
def read(monkeypatch):
    """How often the parser has walked through each text."""
    return count_parses(monkeypatch)


def fresh(text: str, mark: str) -> str:
    """The text as no other test has it, so that nothing is known of it yet."""
    return text.replace("1", f"1 in {mark}", 1)


def test_a_text_as_the_action_is_parsed_once(make_env, read):
    calls, answer = fresh(CALLS, "a text"), fresh(ANSWER, "a text")
    env = CompletionAction(make_env())
    env.reset(seed=0, options={"task_id": "colour"})
    env.step(calls)
    assert env.step(answer)[2]
    assert read == {calls: 1, answer: 1}


def test_equal_texts_of_a_group_are_parsed_once(make_vector, read):
    answer = fresh(ANSWER, "a group")
    vector = VectorCompletionAction(make_vector(4))
    vector.reset(seed=[3] * 4)
    assert vector.step([answer] * 4)[2].all()
    assert read == {answer: 1}


class Written:
    """An agent of somebody else's: it writes texts and turns them into actions."""

    def __init__(self, *texts):
        self.texts = list(texts)

    def begin(self, rows):
        pass

    def act(self, observations, rows):
        text = self.texts.pop(0)
        return [Decision(action_from_completion(text, 3)) for _ in rows]


def test_an_agents_turn_is_parsed_once(make_vector, read):
    calls, answer = fresh(CALLS, "an agent"), fresh(ANSWER, "an agent")
    (rollout,) = play(make_vector(1), Written(calls, answer), [Start("colour", 4)])
    assert (rollout.stop_reason, rollout.executed) == ("answered", 2)
    assert read == {calls: 1, answer: 1}


END = 256
PLAIN = [*range(33, 127), *range(161, 173), *range(174, 256)]
OTHERS = [byte for byte in range(256) if byte not in PLAIN]


class Bytes:
    """A tokenizer with one token a byte, whose symbols are those of byte-level vocabularies."""

    eos_token_id = END
    added_tokens_decoder = {END: "<|im_end|>"}  # noqa: RUF012

    def __len__(self):
        return END + 1

    def __call__(self, text, add_special_tokens):
        return {"input_ids": list(text.encode())}

    def convert_ids_to_tokens(self, ids):
        symbols = {byte: chr(256 + place) for place, byte in enumerate(OTHERS)}
        return [symbols.get(i, chr(i)) for i in ids]


class Vision:
    """The part of a model's adapter that conversations use."""

    tokenizer = Bytes()
    image_pad_id, vision_start_id, vision_end_id = 1, 2, 3

    def image_token_count(self, height, width):
        return 1


class Drawn(ConversationAgent):
    """Draws the given texts and reads every crop as "seen"."""

    def __init__(self, limits, *texts):
        config = AgentConfig(prompt_style="compact", forced_prefix="<think>\n")
        super().__init__(Vision(), config, limits)
        self.texts = list(texts)

    def sample(self, text):
        ids = [*text.encode(), self.stop_id]
        return Sampled(ids, [-1.0] * len(ids))

    def draw(self, turns):
        text = self.texts.pop(0).removeprefix("<think>\n")
        return [self.sample(text) for _ in turns]

    def read(self, readings):
        return [self.sample("seen") for _ in readings]


def test_a_text_agents_turn_is_parsed_once_and_a_reading_never(make_vector, read):
    calls, answer = fresh(CALLS, "tokens"), fresh(ANSWER, "tokens")
    env = make_vector(1)
    agent = Drawn(Limits.of(env.simulation.settings), calls, answer)
    parse("<think>\n")  # the forced prefix; its roles are worked out once, not once a turn
    read.clear()
    (rollout,) = play(env, agent, [Start("colour", 4)])
    assert [turn["completion"] for turn in rollout.turns] == [calls, answer]
    assert [one.kind for one in rollout.trajectories] == ["main", "subagent", "subagent"]
    assert read == {calls: 1, answer: 1}


def test_what_an_agent_says_of_its_text_is_not_believed(make_env):
    env = make_env()
    env.reset(seed=0, options={"task_id": "colour"})
    action = action_from_completion(fresh(ANSWER, "a lie"), 3)
    with pytest.raises(ValueError, match="not those of its completion"):
        env.step({**action, "answer": "C"})
    with pytest.raises(ValueError, match="not those of its completion"):
        env.step({**action, "crop_mask": np.array([1, 0, 0], np.int8)})

    class Sly(str):
        """Says that it equals another text."""

        __slots__ = ()

        def __eq__(self, other):
            return True

        def __hash__(self):
            return hash(action["completion"])

        def __str__(self):
            return action["completion"]

    with pytest.raises(ValueError, match="not those of its completion"):
        env.step({**action, "completion": Sly(CALLS)})
    assert env.step(action)[4]["answer"] == "B"


def test_texts_of_megabytes_are_parsed_and_not_kept(read):
    text = "<think>" + "x" * KEPT_CHARS + "</think><answer>B</answer>"
    assert (parse(text).answer, parse(text).answer) == ("B", "B")
    assert read == {text: 2}
    kept = fresh(text[-KEPT_CHARS:], "one that is just short enough")
    assert len(kept) <= KEPT_CHARS
    assert parse(kept) is parse(kept)

"""A full engine: its requests are bounded, and nobody decodes or plays ahead of it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.fake_vllm import VLM, FakeLLM, install, prompts

from agents.base import Decision
from agents.config import AgentConfig, VLLMConfig
from agents.vllm.engine import EngineError, Generated, Prompt
from agents.vllm.local import InProcessEngine
from agents.vllm.server import ServerEngine
from paravt_env.protocol import action_from_completion, render_completion
from train.rollout.starts import Start
from train.workers.lanes import Lane, play_in_lanes


def config(max_requests: int) -> AgentConfig:
    return AgentConfig(engine="vllm", vllm=VLLMConfig(url="http://x", max_requests=max_requests))


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> FakeLLM:
    """What the engine in this process drives instead of vLLM."""
    return install(monkeypatch, FakeLLM())


@pytest.mark.parametrize("bound", [1, 3, 100])
def test_vllm_here_holds_as_many_requests_as_allowed_and_answers_all(llm, bound) -> None:
    engine = InProcessEngine(config(bound), VLM)
    results = engine.generate(prompts(*range(10)))
    assert [[one.ids for one in many] for many in results] == [[[n]] for n in range(10)]
    assert llm.most == min(bound, 10)


def test_lanes_share_the_bound_and_each_gets_its_own(llm) -> None:
    engine = InProcessEngine(config(2), VLM)
    with ThreadPoolExecutor(4) as pool:
        lanes = [range(10 * lane, 10 * lane + 5) for lane in range(4)]
        results = list(pool.map(lambda numbers: engine.generate(prompts(*numbers)), lanes))
    for numbers, result in zip(lanes, results, strict=True):
        assert [one.ids[0] for (one,) in result] == list(numbers)
    assert llm.most <= 2


def test_a_refused_request_fails_those_that_wait_and_the_next_ones_run(llm) -> None:
    engine = InProcessEngine(config(2), VLM)
    llm.refused = 3
    with pytest.raises(EngineError, match="too long"):
        engine.generate(prompts(*range(6)))
    assert llm.held == {}
    llm.refused = -1
    assert [one.ids for (one,) in engine.generate(prompts(7, 8))] == [[7], [8]]
    assert engine.generate([]) == []


def test_a_server_has_as_many_requests_in_flight_as_allowed(monkeypatch) -> None:
    lock, full, state = threading.Lock(), threading.Barrier(3), {"now": 0, "most": 0}

    def request(self: ServerEngine, prompt: Prompt) -> list[Generated]:
        with lock:
            state["now"] += 1
            state["most"] = max(state["most"], state["now"])
        full.wait(10)  # only met if three are in flight together
        with lock:
            state["now"] -= 1
        return [Generated([prompt.seed], [0.0], [0])]

    monkeypatch.setattr(ServerEngine, "_request", request)
    monkeypatch.setattr(ServerEngine, "post", lambda *args: {"results": [{}]})
    engine = ServerEngine(config(3), VLM)
    drawn = engine.generate(prompts(*range(12)))
    assert [one.ids for (one,) in drawn] == [[n] for n in range(12)]
    assert state == {"now": 0, "most": 3}
    engine.close()


@pytest.mark.parametrize("name", ["max_requests", "max_sequences"])
def test_a_bound_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"agent.vllm.{name} must be at least 1: 0"):
        VLLMConfig(**{name: 0})


CALL = render_completion("I should look at both ends first.", [(10.0, 12.0)], "")
ANSWER = render_completion("Now the colour is clear to me.", [], "B")


class Waits:
    """Looks once, then answers; every turn waits until the engine has room."""

    def __init__(self) -> None:
        self.asked, self.room = threading.Event(), threading.Event()

    def begin(self, rows) -> None:
        self.texts = iter([CALL, ANSWER])

    def act(self, observations, rows) -> list[Decision]:
        self.asked.set()
        assert self.room.wait(10)
        text = next(self.texts)
        return [Decision(action_from_completion(text, 3)) for _ in rows]


def test_while_the_engine_is_full_no_frames_are_decoded(make_vector) -> None:
    """A lane waits inside its turn, so its environment holds one batch of frames and no more."""
    agents = [Waits(), Waits()]
    lanes = [Lane(make_vector(1), agent) for agent in agents]
    stores = [lane.env.simulation.video.store for lane in lanes]
    starts = [Start("colour", 4, 1), Start("shape", 4, 2)]
    with ThreadPoolExecutor(1) as pool:
        playing = pool.submit(play_in_lanes, lanes, starts, 1)
        for agent in agents:
            assert agent.asked.wait(10)
        overview = [store.decoded for store in stores]
        assert not agents[0].room.wait(0.05)
        assert [store.decoded for store in stores] == overview
        agents[1].room.set()
        while stores[1].decoded == overview[1]:
            assert not playing.done()
        assert stores[0].decoded == overview[0], "the other lane goes on, this one waits"
        agents[0].room.set()
        rollouts = playing.result(10)
    assert [one.executed for one in rollouts] == [1, 1]
    assert stores[0].decoded > overview[0] > 0

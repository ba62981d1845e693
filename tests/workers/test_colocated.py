"""An engine in each process: who may have one, and that it sleeps while the learner updates."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from support.fake_vllm import VLM, FakeEngine, FakeLLM, install, prompts
from support.tiny_runs import SHAPE, tiny_settings, with_run

from agents.config import AgentConfig, VLLMConfig
from agents.vllm import local as vllm_local
from agents.vllm.engine import EngineError
from agents.vllm.local import InProcessEngine
from agents.vllm.server import ServerEngine
from train.common.errors import ConfigError
from train.config.parallel import ParallelConfig
from train.config.recipe import load
from train.config.run import TrainConfig
from train.distributed.processes import ALONE, Group, Processes
from train.learner.learner import Learner
from train.loop import launch
from train.loop.checks import check
from train.workers import rollout_workers


class Sleeper(FakeLLM):
    """Writes down what wakes it and what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    def sleep(self, level: int) -> None:
        self.log.append(f"sleep {level}")

    def wake_up(self, tags: list[str]) -> None:
        self.log.append(f"wake {' '.join(tags)}")

    def collective_rpc(self, method: str, args=()):
        if method == "paravt_reload":
            self.log.append(f"load {len(list(args[0]))}")
        return super().collective_rpc(method)

    def reset_encoder_cache(self) -> None:
        self.log.append("reset images")

    def reset_prefix_cache(self) -> bool:
        self.log.append("reset keys")
        return True

    def set_weight_version(self, version: str) -> None:
        super().set_weight_version(version)
        self.log.append(f"version {version}")


@pytest.fixture
def llm(monkeypatch) -> Sleeper:
    return install(monkeypatch, Sleeper())


@pytest.fixture
def cards(monkeypatch) -> list[torch.device]:
    """The cards that threads turned to."""
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    return taken


def engine(device: str = "cuda", **vllm: object) -> InProcessEngine:
    made = InProcessEngine(AgentConfig(engine="vllm", device=device, vllm=VLLMConfig(**vllm)), VLM)
    made.llm.log.clear()
    return made


WEIGHTS = [("a", torch.zeros(1)), ("b", torch.zeros(1))]
AFTER = ["reset images", "reset keys", "version 3"]


@pytest.mark.parametrize("level", [1, 2])
def test_new_weights_wake_an_engine_before_and_its_cache_after_they_are_loaded(
    llm, cards, level
) -> None:
    sleeper = engine(sleep=level)
    assert llm.arguments["enable_sleep_mode"] is True
    sleeper.sleep()
    sleeper.sleep()
    assert llm.log == [f"sleep {level}"]
    sleeper.load(WEIGHTS, 3)
    assert llm.log[1:] == ["wake weights", "load 2", "wake kv_cache", *AFTER]
    assert [g.ids for (g,) in sleeper.generate(prompts(7))] == [[7]]
    llm.log.clear()
    sleeper.load(WEIGHTS, 3)
    assert llm.log == ["load 2", *AFTER]


@pytest.mark.parametrize("how", [{"sleep": 0}, {"device": "cpu", "sleep": 2}])
def test_an_engine_without_sleep_and_one_on_a_cpu_stay_awake(llm, cards, how) -> None:
    awake = engine(**how)
    assert "enable_sleep_mode" not in llm.arguments
    awake.sleep()
    assert llm.log == []
    assert [g.ids for (g,) in awake.generate(prompts(7))] == [[7]]


def test_a_sleeping_engine_draws_nothing_and_one_that_draws_does_not_sleep(llm, cards) -> None:
    sleeper = engine()
    sleeper._driving = True
    with pytest.raises(EngineError, match="cannot sleep while completions are being drawn"):
        sleeper.sleep()
    sleeper._driving = False
    sleeper.sleep()
    with pytest.raises(EngineError, match=r"sleeps while .* new weights .*weights_changed"):
        sleeper.generate(prompts(7))
    sleeper.load(WEIGHTS, 3)
    assert [g.ids for (g,) in sleeper.generate(prompts(8))] == [[8]]


def test_every_thread_works_on_the_engine_s_own_card(llm, cards, monkeypatch) -> None:
    """A thread that begins is on card 0, whatever the main thread chose."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    mine = engine("cuda:1")
    for act in (lambda: mine.generate(prompts(7)), mine.sleep, lambda: mine.load(WEIGHTS, 3)):
        cards.clear()
        thread = threading.Thread(target=act)
        thread.start()
        thread.join()
        assert cards == [torch.device("cuda:1")]
    cards.clear()
    engine("cuda").generate(prompts(7))
    assert cards == [], "torch refuses a card without a number"


@pytest.mark.parametrize(("joined", "size"), [(False, 0), (True, 1), (True, 2)])
def test_vllm_joins_the_processes_only_where_there_are_several(
    llm, monkeypatch, joined, size
) -> None:
    processes = SimpleNamespace(is_initialized=lambda: joined, get_world_size=lambda: size)
    monkeypatch.setattr(vllm_local, "dist", processes)
    engine("cpu")
    assert llm.arguments["tensor_parallel_size"] == 1
    launcher = "external_launcher" if size == 2 else None
    assert llm.arguments.get("distributed_executor_backend") == launcher


class Recorder(FakeEngine):
    """Notes who asks what of it; like `InProcessEngine` it sleeps if its settings say so."""

    def __init__(self, config: AgentConfig, vlm, log: list[str]) -> None:
        super().__init__(vlm)
        self.level, self.log = config.vllm.sleep, log

    def generate(self, prompts):
        if self.log[-1] != "play":
            self.log.append("play")
        drawn = super().generate(prompts)
        return [
            [replace(one, versions=[self.version] * len(one.ids)) for one in many] for many in drawn
        ]

    def push(self, version: int) -> None:
        self.version = version
        self.log.append(f"push {version}")

    def sleep(self) -> None:
        if self.level:
            self.log.append("sleep")


@pytest.fixture
def train(clip, other_clip, tmp_path, monkeypatch):
    """What happens in a run of two steps, in order."""

    def run(**settings) -> list[str]:
        log: list[str] = []
        world = tiny_settings(tmp_path, (clip, other_clip), SHAPE)
        world.algorithm = replace(world.algorithm, groups=2, group_size=2)
        config = with_run(world, "run", steps=2, checkpoint_every=0, **settings)
        config.agent = replace(world.agent, engine="vllm")
        update = Learner.update

        def updated(self, *args):
            log.append("update")
            return update(self, *args)

        monkeypatch.setattr(Learner, "update", updated)
        monkeypatch.setattr(rollout_workers, "connect", lambda config, model, engine: engine)
        monkeypatch.setattr(
            rollout_workers, "start_engine", lambda config, vlm: Recorder(config, vlm, log)
        )
        launch.train(config)
        return log

    return run


def test_the_engine_sleeps_from_the_end_of_a_batch_to_the_new_weights(train) -> None:
    step = ["play", "sleep", "update"]
    assert train() == ["push 0", *step, "push 1", *step, "push 2"]


def test_an_engine_that_plays_during_the_update_never_sleeps(train) -> None:
    log = train(asynchronous=True)
    assert log.count("update") == 2 and "play" in log and "sleep" not in log


def test_a_server_and_the_learner_s_own_weights_do_not_sleep(monkeypatch) -> None:
    monkeypatch.setattr(ServerEngine, "post", lambda *args: {"results": [{}]})
    config = AgentConfig(engine="vllm_server", vllm=VLLMConfig(url="http://x"))
    server = ServerEngine(config, VLM)
    rollout_workers.RolloutWorkers([], engine=server).rest()
    rollout_workers.RolloutWorkers([]).rest()
    server.close()


def test_the_levels_of_sleep() -> None:
    assert VLLMConfig().sleep == 1
    for level in (-1, 3):
        with pytest.raises(ValueError, match=rf"agent.vllm.sleep must be 0 .* or 2 .*: {level}"):
            VLLMConfig(sleep=level)


SECOND = Processes(Group(1, 2), Group(1, 2))


def settings(engine: str, layout: str) -> TrainConfig:
    agent = AgentConfig(checkpoint="somewhere", engine=engine, device="cuda")
    return TrainConfig(agent=agent, parallel=ParallelConfig(layout=layout))


def test_each_process_that_plays_and_trains_may_have_an_engine_on_its_own_card(
    monkeypatch,
) -> None:
    config = settings("vllm", "colocated")
    for processes in (ALONE, SECOND):
        check(config, processes, None)
    monkeypatch.setenv("LOCAL_RANK", "1")
    playing = launch.playing_agent(config.agent, SECOND)
    assert (playing.engine, playing.device) == ("vllm", "cuda:1")
    config.agent.device = "cuda:0"
    with pytest.raises(ConfigError, match=r"takes card 1 .* Set agent\.device=cuda, so that each"):
        check(config, SECOND, None)


def test_a_card_that_an_engine_here_would_not_take_is_refused_before_anything_is_loaded(
    llm, monkeypatch
) -> None:
    """By a run as it starts, and by the engine itself where an evaluation starts it."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    config = settings("vllm", "colocated")
    for device in ("cuda", "cuda:0", "cpu"):
        config.agent.device = device
        check(config, ALONE, None)
    config.agent.device = "cuda:1"
    with pytest.raises(ConfigError, match=r"takes card 0 .* Set CUDA_VISIBLE_DEVICES=1 and agent"):
        check(config, ALONE, None)
    with pytest.raises(EngineError, match=r"takes card 0 .* Set CUDA_VISIBLE_DEVICES=1 and agent"):
        engine("cuda:1")
    assert not hasattr(llm, "arguments")
    config.agent.engine = "vllm_server"
    check(config, ALONE, None)


@pytest.mark.parametrize(
    ("engine", "layout", "advice"),
    [
        ("vllm", "disaggregated", r"parallel\.layout=colocated, or agent\.engine=vllm_server"),
        ("vllm_server", "colocated", r"parallel\.layout=disaggregated, or agent\.engine=vllm for"),
    ],
)
def test_an_engine_that_does_not_fit_the_layout_is_refused(engine, layout, advice) -> None:
    said = rf"agent\.engine={engine} with parallel\.layout={layout}: .* give {advice}"
    with pytest.raises(ConfigError, match=said):
        check(settings(engine, layout), SECOND, None)


def test_an_engine_of_its_own_has_one_card() -> None:
    said = r"tensor_parallel=2 with .* of its own on .*agent\.vllm\.tensor_parallel=1"
    with pytest.raises(ConfigError, match=said):
        load(TrainConfig, None, ["--agent.engine=vllm", "--agent.vllm.tensor_parallel=2"])
    config = settings("vllm", "colocated")
    config.agent.vllm.tensor_parallel = 2
    with pytest.raises(ConfigError, match=said):
        check(config, SECOND, None)

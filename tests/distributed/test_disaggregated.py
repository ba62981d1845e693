"""The disaggregated layout as `paravt train` runs it: one process plays, the other one trains."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.gloo_processes import run
from support.tiny_runs import SHAPE, process, tiny_settings, varied, with_run

from agents.config import VLLMConfig
from agents.model.vlm import VisionLanguageModel
from agents.vllm.process import TORCHRUN, server_environment
from train.common.errors import ConfigError
from train.common.metrics_file import read_metrics
from train.config.parallel import ParallelConfig
from train.distributed.processes import ALONE, Group, Processes
from train.loop import checks, launch
from train.workers import lanes, rollout_workers


@pytest.mark.parametrize("trains", [True, False])
def test_a_process_that_only_plays_loads_no_reference_policy(make, monkeypatch, trains):
    loaded, load = [], VisionLanguageModel.load
    monkeypatch.setattr(
        VisionLanguageModel, "load", lambda *given: [loaded.append(given), load(*given)][1]
    )
    alone = Processes(config=ParallelConfig(layout="disaggregated"))
    player = replace(alone, world=Group(0, 2), training=Group(0, 0), trains=False)
    learner = launch._learner(make("reference"), alone if trains else player, None)
    assert len(loaded) == 1 + trains and (learner.reference is not None) == trains
    assert learner.divergence([]).tolist() == []


@pytest.fixture
def make(clip, other_clip, tmp_path):
    """Settings of a run of a few tokens on a random model."""
    world = tiny_settings(tmp_path, (clip, other_clip), SHAPE)
    world.algorithm = replace(world.algorithm, groups=2, group_size=3, minibatches=2)

    def settings(name, layout="disaggregated", **agent):
        config = with_run(world, name, steps=3, checkpoint_every=0)
        config.agent = replace(world.agent, **agent)
        config.parallel = ParallelConfig(layout=layout, timeout=300)
        return config

    return settings


def test_one_that_plays_and_one_that_trains_are_one_process_that_does_both(make, monkeypatch):
    for module in (rollout_workers, lanes):
        monkeypatch.setattr(module, "play", varied)
    split, alone = make("split"), make("alone", "colocated")
    (player, saved), (trainer, _) = run(process, 2, split)
    assert player == ["TransformersAgent"] * 3 and trainer == []
    whole = launch.train(alone)
    steps, expected = read_metrics(split.run.path), read_metrics(alone.run.path)
    assert len(steps) == 3
    for step, one in zip(steps, expected, strict=True):
        for name in ("loss", "grad_norm", "kl", "entropy", "reward", "behaviour_mismatch"):
            assert step[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6)
        assert step["grad_norm"] > 0 and step["staleness/max"] == 0
    weights = [VisionLanguageModel.load(f).model.state_dict() for f in (saved, whole)]
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][name], atol=1e-4)


ON_ITS_OWN = Processes(Group(0, 2), plays=True, trains=False)


def check(config, processes=ON_ITS_OWN):
    checks.check(config, processes, None)


def test_engines_that_several_processes_cannot_have_are_refused(make):
    check(make("server", engine="vllm_server"))
    check(make("here", "colocated", engine="vllm"), ALONE)
    for layout, engine in (("disaggregated", "vllm"), ("colocated", "vllm_server")):
        with pytest.raises(
            ConfigError, match=f"engine={engine} with .*parallel.layout=disaggregated"
        ):
            check(make("no", layout, engine=engine))
    config = make("shared", engine="vllm_server", vllm=VLLMConfig(url="http://x", sync="nccl"))
    check(config)
    config.parallel.generator_ranks = 2
    with pytest.raises(ConfigError, match="generator_ranks=2 would share the server at http://x"):
        check(config)
    for changes in ({"tensor_parallel": 2}, {"sync": "nccl"}):
        with pytest.raises(ConfigError, match=r"tensor_parallel=1 and agent\.vllm\.sync=memory"):
            check(make("card", engine="vllm_server", vllm=VLLMConfig(**changes)))
    ahead = make("ahead", "colocated")
    ahead.run.asynchronous = True
    check(ahead, ALONE)
    with pytest.raises(ConfigError, match=r"run\.asynchronous .* parallel\.layout=disaggregated"):
        check(ahead)


def test_only_who_plays_has_an_engine(make):
    config = make("server", engine="vllm_server").agent
    trains = replace(ON_ITS_OWN, plays=False, trains=True)
    engines = [launch.playing_agent(config, one).engine for one in (ON_ITS_OWN, trains)]
    assert engines == ["vllm_server", "transformers"]


def test_a_server_is_no_process_of_the_job_and_has_the_card_of_its_player(monkeypatch):
    for name in (*TORCHRUN, "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    told = server_environment("cpu")
    assert not {*TORCHRUN, "TORCHELASTIC_RUN_ID", "CUDA_VISIBLE_DEVICES"} & told.keys()
    assert told["VLLM_SERVER_DEV_MODE"] == "1" and told["PATH"] == os.environ["PATH"]
    assert server_environment("cuda:1")["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    seen = [server_environment(d)["CUDA_VISIBLE_DEVICES"] for d in ("cuda", "cuda:0", "cuda:1")]
    assert seen == ["4,6", "4", "6"]


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
def test_a_server_ends_with_a_player_that_is_killed():
    starts = "import subprocess; from agents.vllm.process import tied; "
    starts += "p = subprocess.Popen(tied(['sleep', '600'])); print(p.pid, flush=True); p.wait()"
    player = subprocess.Popen([sys.executable, "-c", starts], stdout=subprocess.PIPE, text=True)
    server = int(player.stdout.readline())

    def command():
        try:
            return Path(f"/proc/{server}/cmdline").read_text()
        except OSError:
            return "gone"

    while not command().startswith("sleep"):  # it has asked the kernel by now
        assert command() != "gone" and player.poll() is None
    player.kill()
    player.wait()
    assert wait_until(lambda: command() in ("gone", ""))


def wait_until(holds, seconds=60.0):
    """Whether something comes true in time."""
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.02)
    return holds()

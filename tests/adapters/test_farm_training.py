"""Our own trainer on a decode farm: the same weights as on this machine."""

from dataclasses import replace

import pytest

pytest.importorskip("openenv")
pytest.importorskip("torch")
from safetensors.torch import load_file
from support.openenv_servers import Running
from support.tiny_runs import SHAPE, tiny_settings, varied, with_run

from train.loop import launch
from train.workers import rollout_workers


def test_two_updates_on_two_servers_are_those_of_one_machine(
    tmp_path, clip, other_clip, monkeypatch
):
    monkeypatch.setattr(rollout_workers, "play", varied)
    config = tiny_settings(tmp_path, (clip, other_clip), SHAPE)
    env = config.env
    served = {
        name: getattr(env, name)
        for name in ("frame_size", "max_turns", "max_crops", "frames_per_crop", "frame_budget")
    }
    servers = [Running(env.tasks, sessions=64, **served) for _ in range(2)]
    try:
        addresses = tuple(server.address for server in servers)
        farm = replace(config, env=replace(env, servers=addresses))
        weights = [
            load_file(launch.train(with_run(one, name, steps=2)) / "model.safetensors")
            for name, one in (("local", config), ("farm", farm))
        ]
        assert servers[0].simulation.video.store.decoded > 0
        assert servers[1].simulation.video.store.hits > 0
    finally:
        for server in servers:
            server.stop()
    start = load_file(tmp_path / "tiny" / "model.safetensors")
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    assert any((weights[0][name] != start[name]).any() for name in start)

"""Training on a CUDA GPU, and the same on the CPU: recomputed blocks, sharding, the benchmark."""

import json

import pytest
import torch
import torch.distributed as dist
from support.gloo_processes import free_port, run
from support.gpu import benchmark_script, cuda
from support.learning import MANY_TURNS, SHAPE, batch_of, config, relative_difference

from agents.model.mini import build_mini
from agents.model.vlm import VisionLanguageModel
from train.config.parallel import ParallelConfig
from train.distributed.processes import ALONE, Group, Processes
from train.learner.learner import Learner
from train.learner.meter import Meter
from train.learner.weights import ShardedWeights, whole
from train.packing.samples import Sample

DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, cuda])]
BOUND = {"cpu": 1e-5, "cuda": 1e-3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_mini(tmp_path_factory.mktemp("mini"), ["where is it"] * 4, SHAPE)


def gradients(learner, batch):
    """Gradients by name, whole and on the CPU."""
    samples = [Sample(t, a) for t, a in zip(batch.trajectories, batch.advantages, strict=True)]
    learner.accumulate(samples, Meter())
    named = learner.weights.parameters.items()
    return {name: whole(p.grad).float().cpu() for name, p in named if p.grad is not None}


def learner_of(folder, device, attention="auto", parallel=ALONE):
    vlm = VisionLanguageModel.load(folder, "float32", device)
    return Learner(vlm, config(attention=attention), processes=parallel)


@pytest.mark.parametrize("device", DEVICES)
def test_recomputed_blocks_have_the_gradients_of_the_dense_mask(folder, device):
    """On CUDA in FlexAttention, whose second forward pass runs in the backward pass's thread."""
    again = Processes(config=ParallelConfig(recompute=True))
    batch = batch_of(folder, MANY_TURNS)
    found = gradients(learner_of(folder, device, parallel=again), batch)
    dense = gradients(learner_of(folder, device, "dense"), batch)
    assert relative_difference(found, dense) < BOUND[device]


def offloaded(folder, device, batch, port):
    """Gradients of one process under FSDP2 with its weights on the CPU, and what a step does."""
    import train.learner.learner

    train.learner.learner.weights_for = ShardedWeights  # by itself one process does not shard
    if device == "cuda":
        torch.cuda.set_device(0)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
        init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1,
    )  # fmt: skip
    mesh = dist.init_device_mesh(device, (1,), mesh_dim_names=("training",))
    settings = ParallelConfig(offload=True, recompute=True)
    alone = Processes(training=Group(0, 1, mesh.get_group()), mesh=mesh, config=settings)
    learner = learner_of(folder, device, parallel=alone)
    found = {name: g.numpy() for name, g in gradients(learner, batch).items()}
    played = list(learner.vlm.model.parameters())
    before = [p.detach().clone() for p in played]
    steps = learner.update(batch)["optimizer_steps"]
    return {
        "gradients": found,
        "sharded on": {p.to_local().device.type for p in learner.parameters},
        "played on": {p.device.type for p in played},
        "steps": steps,
        "moved": sum(not torch.equal(*pair) for pair in zip(before, played, strict=True)),
    }


@pytest.mark.parametrize("device", DEVICES)
def test_a_sharded_process_with_offload_has_the_gradients_of_a_plain_one(folder, device):
    batch = batch_of(folder, [[[5], [3]], [[7]]])
    (found,) = run(offloaded, 1, folder, device, batch, free_port())
    assert found["sharded on"] == {"cpu"} and found["played on"] == {device}
    expected = gradients(learner_of(folder, device), batch)
    assert found["steps"] == 1 and found["moved"] >= len(expected)
    own = {name: torch.from_numpy(g) for name, g in found["gradients"].items()}
    assert own.keys() == expected.keys()
    assert relative_difference(own, expected) < BOUND[device]


@pytest.fixture
def benchmark(monkeypatch):
    """The script as a module, which knows its tiny shape by name."""
    module = benchmark_script(monkeypatch)
    monkeypatch.setitem(module.SHAPES, "tiny", module.TINY)
    monkeypatch.setattr(module, "SIZE", (32, 48))
    return module


@pytest.mark.parametrize("device", DEVICES)
def test_the_tiny_benchmark_measures_all_of_its_rows(benchmark, tmp_path, device):
    table, rows = tmp_path / "gpu.txt", tmp_path / "gpu.json"
    tiny = ["--models", "tiny", "--frames", "2", "4", "--group", "4", "--completion", "8"]
    flags = tiny if device == "cuda" else ["--smoke"]
    benchmark.main(
        [*flags, "--repeats=1", "--budget=1e6", "--output", str(table), "--json", str(rows)]
    )
    said = table.read_text()
    assert "left out" not in said and "out of memory" not in said
    assert sum(line.startswith("tiny ") for line in said.splitlines()[3:15]) == 12
    updates = json.loads(rows.read_text())["rows"]
    assert len(updates) == 8 and {row["device"] for row in updates} == {device}
    assert all(row["seconds"] > 0 and row["tokens"] > 0 for row in updates)

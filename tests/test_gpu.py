"""The learner on a CUDA GPU: its attention against the dense mask; skipped without one.

And the benchmark's own bookkeeping (`benchmarks/gpu.py`), on a tiny shape that is never timed.
"""

import json
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from time import perf_counter

import pytest
import torch
from test_learner import MANY_TURNS, SHAPE, TEMPERATURE, config, make_batch, relative_difference

from agents.mini import build_mini
from agents.vlm import VisionLanguageModel
from train.learner import Learner
from train.meter import Meter
from train.trajectory import Sample

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    shape = replace(SHAPE, hidden_size=64, heads=4)  # heads of 16: the least that FlexAttention has
    return build_mini(tmp_path_factory.mktemp("mini"), ["where is it"] * 4, shape)


def gradients(folder, device, attention, batch, dtype="float32"):
    vlm = VisionLanguageModel.load(folder, dtype, device)
    learner = Learner(vlm, config(attention=attention), TEMPERATURE)
    samples = [Sample(t, a) for t, a in zip(batch.trajectories, batch.advantages, strict=True)]
    learner.accumulate(samples, Meter())
    named = learner.weights.parameters.items()
    return {name: p.grad.float().cpu() for name, p in named if p.grad is not None}


def batch_of(folder, turns):
    return make_batch(VisionLanguageModel.load(folder), turns, frames=True, subagents=True)


@pytest.mark.gpu
@cuda
def test_flex_attention_has_the_gradients_of_the_dense_mask(folder):
    batch = batch_of(folder, MANY_TURNS)
    flex, dense = (gradients(folder, "cuda", mode, batch) for mode in ("flex", "dense"))
    assert relative_difference(flex, dense) < 1e-3
    assert relative_difference(flex, gradients(folder, "cpu", "split", batch)) < 1e-3


@pytest.mark.gpu
@cuda
def test_bfloat16_on_the_gpu_is_near_float32_on_the_cpu(folder):
    batch = batch_of(folder, MANY_TURNS)
    low = gradients(folder, "cuda", "auto", batch, "bfloat16")
    assert relative_difference(low, gradients(folder, "cpu", "auto", batch)) < 0.1


def test_plain_sequences_take_the_flash_kernel_with_the_gradients_of_the_dense_mask(
    folder, monkeypatch
):
    """Trees of one branch need no block mask, so this runs on a CPU too."""
    monkeypatch.setattr("train.learner.choose", lambda setting, device: setting)
    batch = batch_of(folder, [[[5]], [[3, 2]], [[7]]])
    flex, dense = (gradients(folder, "cpu", mode, batch) for mode in ("flex", "dense"))
    assert relative_difference(flex, dense) < 1e-5


@pytest.fixture
def benchmark(monkeypatch):
    """The script as a module; each of its rows takes `seconds` by a clock of its own."""
    path = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
    spec = spec_from_file_location("gpu_benchmark", path)
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look it up
    spec.loader.exec_module(module)
    module.runs = []

    def timed(work, repeats, cuda, warm=True):
        module.runs.append((repeats, warm))
        if len(module.runs) > module.killed_after:
            raise KeyboardInterrupt
        return 0.5, 2.0**30

    module.killed_after = 100
    monkeypatch.setattr(module, "timed", timed)
    monkeypatch.setattr(module, "learner_for", lambda vlm, rank: Learner(vlm, config(), 1.0))
    return module


def written(tmp_path):
    files = tmp_path / "gpu.txt", tmp_path / "gpu.json"
    return files, ["--smoke", "--output", str(files[0]), "--json", str(files[1])]


def test_a_benchmark_that_is_ended_keeps_its_rows(benchmark, tmp_path):
    (table, rows), flags = written(tmp_path)
    benchmark.killed_after = 3
    with pytest.raises(KeyboardInterrupt):
        benchmark.main(flags)
    said = table.read_text()
    assert said.startswith("$ python benchmarks/gpu.py --smoke")
    assert [" ".join(r.split()[:4]) for r in said.splitlines()[3:6]] == [
        "tiny full packed 2", "tiny full repeated 2", "tiny full vision once",
    ]  # fmt: skip
    kept = json.loads(rows.read_text())
    assert [row["method"] for row in kept["rows"]] == ["packed", "repeated"]
    assert kept["constants"]["source"] == benchmark.device_name()
    assert benchmark.Constants.load(rows).flops == kept["constants"]["flops"]


def test_without_time_every_row_says_that_it_was_left_out(benchmark, tmp_path):
    (table, rows), flags = written(tmp_path)
    benchmark.main([*flags, "--budget", "-1"])
    lines = table.read_text().splitlines()[3:]
    assert len(lines) == 12 and all("left out: about" in one for one in lines)
    assert benchmark.runs == [] and json.loads(rows.read_text())["rows"] == []


def test_large_rows_are_run_once_and_repeated_prompts_in_part(benchmark, tmp_path, monkeypatch):
    (table, rows), flags = written(tmp_path)
    monkeypatch.setattr(benchmark, "LARGE", 0.0)
    benchmark.main([*flags, "--row-seconds", "0"])
    assert set(benchmark.runs) == {(1, True), (1, False)}
    scaled = [row for row in json.loads(rows.read_text())["rows"] if row["method"] == "repeated"]
    assert {(row["members"], row["seconds"]) for row in scaled} == {(1, 4 * 0.5)}
    assert table.read_text().count("scaled from 1 of 4 prompts") == len(scaled) == 4


def test_no_row_of_repeated_prompts_takes_minutes_by_the_cost_model(benchmark):
    """Whole, 8 prompts of 1024 frames would be 137 s a run."""
    clock = benchmark.Clock(perf_counter() + 1e6, 15.0)
    shape = benchmark.SHAPES["8b"]
    seconds = {}
    for frames in benchmark.FRAMES:
        setting = benchmark.Setting(frames=frames, completion=256, lora=16, reference=False)
        whole = benchmark.operations(shape, setting, "repeated") / clock.speed
        seconds[frames] = whole * clock.members(whole, 8) / 8
    assert whole > 120 and max(seconds.values()) < 20 and clock.members(1.0, 8) == 8

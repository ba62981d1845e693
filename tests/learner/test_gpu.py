"""The learner on a CUDA GPU: its attention against the dense mask; skipped without one.

And the benchmark's own bookkeeping (`benchmarks/gpu.py`), on a tiny shape that is never timed.
"""

import json
from argparse import Namespace
from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest
from support.gpu import benchmark_script, cuda
from support.learning import MANY_TURNS, SHAPE, batch_of, config, relative_difference

from agents.model.mini import build_mini
from agents.model.vlm import VisionLanguageModel
from train.learner.learner import Learner
from train.learner.meter import Meter
from train.packing.samples import Sample


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    shape = replace(SHAPE, hidden_size=64, heads=4)  # heads of 16: the least that FlexAttention has
    return build_mini(tmp_path_factory.mktemp("mini"), ["where is it"] * 4, shape)


def gradients(folder, device, attention, batch, dtype="float32"):
    vlm = VisionLanguageModel.load(folder, dtype, device)
    learner = Learner(vlm, config(attention=attention))
    samples = [Sample(t, a) for t, a in zip(batch.trajectories, batch.advantages, strict=True)]
    learner.accumulate(samples, Meter())
    named = learner.weights.parameters.items()
    return {name: p.grad.float().cpu() for name, p in named if p.grad is not None}


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
    monkeypatch.setattr("train.learner.learner.choose", lambda setting, device: setting)
    batch = batch_of(folder, [[[5]], [[3, 2]], [[7]]])
    flex, dense = (gradients(folder, "cpu", mode, batch) for mode in ("flex", "dense"))
    assert relative_difference(flex, dense) < 1e-5


@pytest.fixture
def benchmark(monkeypatch):
    """The script as a module; each of its rows takes `seconds` by a clock of its own."""
    module = benchmark_script(monkeypatch)
    module.runs = []

    def timed(work, repeats, cuda, warm=True):
        module.runs.append((repeats, warm))
        if len(module.runs) > module.killed_after:
            raise KeyboardInterrupt
        return 0.5, 2.0**30

    module.killed_after, module.real_learner = 100, module.learner_for
    monkeypatch.setattr(module, "timed", timed)
    monkeypatch.setattr(module, "load_libraries", lambda: None)
    monkeypatch.setattr(
        module, "learner_for", lambda vlm, rank: Learner(vlm, config(temperature=1.0))
    )
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
        "tiny full packed 2", "tiny full repeated 2", "tiny full packed 4",
    ]  # fmt: skip
    kept = json.loads(rows.read_text())
    assert [row["method"] for row in kept["rows"]] == ["packed", "repeated", "packed"]
    assert kept["constants"]["source"] == benchmark.device_name("cpu")
    assert kept["constants"]["fitted"][0] == "flops"
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
    """Whole, 8 prompts of 1024 frames would be 112 s a run."""
    clock = benchmark.Clock(perf_counter() + 1e6, 15.0)
    shape = benchmark.SHAPES["8b"]
    seconds = {}
    for frames in benchmark.FRAMES:
        setting = benchmark.Setting(
            frames=frames, completion=256, lora=16, reference=False, budget=1
        )
        seconds[frames] = clock.run(shape, setting, "repeated").once
    assert max(seconds.values()) < 20 and clock.members(1.0, 8) == 8
    whole = benchmark.operations(shape, replace(setting, frames=1024), "repeated")
    assert whole / clock.speed > 100


def asked(benchmark, device="cuda", **named):
    settings = {"frames": benchmark.FRAMES, "group": 8, "completion": 256, "size": (160, 288)}
    return Namespace(**settings | {"device": device} | named)


def test_the_frames_of_the_goals_come_first_of_every_model(benchmark):
    models = [(benchmark.SHAPES["2b"], 0), (benchmark.SHAPES["8b"], 16)]
    found = benchmark.stages(models, asked(benchmark), benchmark.Clock(0.0, 15.0))
    order = [(shape.name, rank, frames) for shape, rank, frames, _ in found]
    goals, others = [512, 1024], [64, 256]
    assert order == [
        ("2b", 0, goals), ("8b", 16, goals), ("2b", 0, others), ("8b", 16, others),
    ]  # fmt: skip
    seconds = [one for *_, one in found]
    assert seconds[1] > seconds[3] > benchmark.START and sum(seconds) < 420
    methods = [method for _, method in benchmark.cells(0, asked(benchmark), goals)]
    assert methods == ["packed", "repeated"] * 2 + ["vision once", "vision repeated"] * 2


def test_goals_share_all_of_the_time_and_what_is_left_goes_to_the_rest(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, "GOALS", (4,))
    now, left = [0.0], []

    def measure(shape, rank, args, frames, clock):
        left.append((rank, frames, clock.until - now[0]))
        now[0] = clock.until
        yield from ()

    monkeypatch.setattr(benchmark, "perf_counter", lambda: now[0])
    monkeypatch.setattr(benchmark, "measure", measure)
    benchmark.main(["--smoke", "--budget", "100"])
    assert [(rank, frames) for rank, frames, _ in left] == [
        (0, [4]),
        (16, [4]),
        (0, [2]),
        (16, [2]),
    ]
    assert left[0][2] + left[1][2] == pytest.approx(100) and left[2][2] == pytest.approx(0)


@pytest.mark.parametrize("rank", [0, 4])
def test_every_run_of_the_benchmark_encodes_its_frames(benchmark, rank):
    vlm = benchmark.build(benchmark.TINY, "cpu")
    learner = benchmark.real_learner(vlm, rank)
    args = asked(benchmark, "cpu", group=2, completion=4, size=(32, 48))
    setting = benchmark.cells(rank, args, [3])[0][0]
    samples = benchmark.make_samples(vlm, setting, repeated=False)
    encoded, real = [], learner.vlm.encode_images

    def encode(images):
        encoded.append(len(images))
        return real(images)

    learner.vlm.encode_images = encode
    for _ in range(2):
        learner.optimize(samples, Meter())
    assert learner.processes.config.recompute and encoded == [3, 3]


def test_utilisation_counts_useful_operations_speed_all_and_memory_what_is_known(
    benchmark, tmp_path
):
    (_, rows), flags = written(tmp_path)
    benchmark.main(flags)
    full, adapted = (
        next(one for one in json.loads(rows.read_text())["rows"] if one["setting"]["lora"] == rank)
        for rank in (0, 16)
    )
    assert full["useful"] == pytest.approx(full["flops"] * 3 / 4)
    assert full["setting"]["width"] == 4 and full["setting"]["feature_cache_gib"] == 0
    assert adapted["useful"] < 0.8 * adapted["flops"] < 0.8 * full["flops"]
    benchmark.PEAK["a card"] = full["useful"]
    benchmark.device_name = lambda device: "a card"
    assert "200.0%" in benchmark.line(full)  # 0.5 s each
    unknown = [one | {"bytes": 0.0} for one in (full, adapted)]
    where = Namespace(device="cpu", output=None, json=rows)
    assert sum("not measured" in said for said in benchmark.write(unknown, [], where)) == 2
    assert json.loads(rows.read_text())["constants"]["fitted"] == ["flops"]


def test_the_peak_of_the_process_is_that_of_the_work(benchmark):
    if not benchmark.forget_peak():
        pytest.skip("this system does not tell the peak of a process")
    before = benchmark.resident()
    np.ones(2**23)  # 64 MiB, freed at once
    assert 2**25 < benchmark.resident("VmHWM") - before < 2**27
    assert benchmark.forget_peak() and benchmark.resident("VmHWM") - before < 2**24

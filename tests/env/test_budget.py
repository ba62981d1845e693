from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from support.builders import ListTasks, make_task

from paravt_env.budget import BUDGETS, Choice, make_budget


def draws(spec, n=4000, seed=0):
    budget, generator = make_budget(spec), np.random.default_rng(seed)
    return np.array([budget.sample(generator) for _ in range(n)])


def test_default_is_a_fair_choice_of_five():
    assert make_budget(None) == Choice((4, 8, 16, 32, 64))
    values, counts = np.unique(draws(None), return_counts=True)
    assert values.tolist() == [4, 8, 16, 32, 64]
    assert np.all(np.abs(counts / 4000 - 0.2) < 0.03)


def test_fixed_is_one_number_and_draws_nothing():
    generator = np.random.default_rng(3)
    before = generator.bit_generator.state
    assert make_budget(7).sample(generator) == 7
    assert make_budget({"kind": "fixed", "frames": 0}).maximum == 0
    assert generator.bit_generator.state == before


def test_uniform_includes_both_ends_evenly():
    values, counts = np.unique(draws({"kind": "uniform", "low": 2, "high": 5}), return_counts=True)
    assert values.tolist() == [2, 3, 4, 5]
    assert np.all(np.abs(counts / 4000 - 0.25) < 0.03)


def test_log_uniform_has_its_stated_probabilities():
    sample = draws({"kind": "log_uniform", "low": 2, "high": 8}, n=8000)
    for k in range(2, 9):
        expected = math.log((k + 1) / k) / math.log(9 / 2)
        assert abs(np.mean(sample == k) - expected) < 0.02, k
    assert sample.min() == 2 and sample.max() == 8


@pytest.mark.parametrize(
    ("spec", "maximum"),
    [
        (5, 5),
        ({"kind": "choice", "values": [3, 9, 1]}, 9),
        ({"kind": "uniform", "low": 0, "high": 6}, 6),
        ({"kind": "log_uniform", "low": 1, "high": 1}, 1),
        ({"kind": "fps", "fps": 0.5, "most": 7}, 7),
        ({"kind": "fps", "fps": 0.5}, 768),
    ],
)
def test_maximum(spec, maximum):
    assert make_budget(spec).maximum == maximum
    assert draws(spec, 200).max() == maximum


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (-1, "at least 0"),
        (True, "whole number"),
        (4.5, "whole number"),
        ("choice", "whole number"),
        ({"kind": "choise"}, "did you mean 'choice'"),
        ({}, "is not one of fixed, choice"),
        ({"kind": "uniform", "low": 1, "hihg": 2}, "did you mean 'high'"),
        ({"kind": "uniform", "low": 1}, "takes low, high"),
        ({"kind": "uniform", "low": 5, "high": 4}, "high must be at least 5"),
        ({"kind": "log_uniform", "low": 0, "high": 4}, "low must be at least 1"),
        ({"kind": "choice", "values": []}, "non-empty list"),
        ({"kind": "choice", "values": [4, -8]}, "at least 0"),
        ({"kind": "choice", "values": "48"}, "non-empty list"),
        ({"kind": "fps"}, "takes fps, most"),
        ({"kind": "fps", "fps": 0}, "fps must be a finite number of frames a second above 0"),
        ({"kind": "fps", "fps": float("inf")}, "a finite number"),
        ({"kind": "fps", "fps": True}, "a finite number"),
        ({"kind": "fps", "fps": 1, "most": 0}, "most must be at least 1"),
    ],
)
def test_bad_spec_says_what_to_do(spec, message):
    with pytest.raises(ValueError, match=message):
        make_budget(spec)


def test_defect_02_k_does_not_depend_on_the_salted_hash():
    code = (
        "import numpy as np; from paravt_env.budget import make_budget;"
        "g = np.random.default_rng(5);"
        "print([make_budget().sample(g) for _ in range(12)])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": salt, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for salt in ("1", "2")
    }
    assert outputs == {f"{[int(k) for k in draws(None, 12, seed=5)]}\n"}


def test_every_kind_is_listed():
    assert list(BUDGETS) == ["fixed", "choice", "uniform", "log_uniform", "fps"]


def test_frames_a_second_with_a_cap(make_env, make_vector, clip, tmp_path):
    budget = {"kind": "fps", "fps": 0.5, "most": 20}
    env = make_env(frame_budget=budget)
    assert env.observation_space["frames"].shape[0] == 20
    observation, info = env.reset(seed=0, options={"task_id": "colour"})
    assert info["frame_budget"] == info["frames_seen"] == 15  # 30 s
    times = observation["timestamps"][observation["window"] == 0]
    assert times.tolist() == [1.0 + 2 * i for i in range(15)]
    capped = make_env(frame_budget=budget | {"most": 13})
    assert capped.reset(seed=0, options={"task_id": "colour"})[1]["frame_budget"] == 13
    one, asked = (env.reset(seed=4, options=o)[1] for o in ({}, {"frame_budget": 3}))
    assert asked["frame_budget"] == asked["frames_seen"] == 3
    assert one["task_id"] == asked["task_id"]
    slow = make_env(frame_budget={"kind": "fps", "fps": 0.001})
    assert slow.reset(seed=0, options={"task_id": "colour"})[1]["frame_budget"] == 1
    vector = make_vector(2, frame_budget=budget)
    infos = vector.reset(seed=[0, 0], options={"task_id": ["colour", "shape"]})[1]
    assert infos["frame_budget"].tolist() == [15, 15]


def test_a_video_that_cannot_be_read_reports_the_cap(make_vector, tmp_path):
    tasks = ListTasks([make_task(str(tmp_path / "missing.mp4"))])
    env = make_vector(1, tasks=tasks, frame_budget={"kind": "fps", "fps": 1, "most": 9})
    info = env.reset(seed=[0])[1]
    assert (info["frame_budget"][0], info["stop_reason"][0]) == (9, "video_error")


class Short:
    """As many frames as the video has seconds, and more than it says."""

    maximum = 29

    def sample(self, np_random):
        return 1

    def for_duration(self, duration):
        return round(duration)


def test_a_budget_of_ones_own_may_look_at_the_duration(make_env):
    own = Short()
    own.maximum = 30
    env = make_env(frame_budget=own)
    assert env.reset(seed=0, options={"task_id": "colour"})[1]["frame_budget"] == 30
    env = make_env(frame_budget=Short())
    with pytest.raises(ValueError, match=r"for_duration\(\) returned 30, above"):
        env.reset(seed=0, options={"task_id": "colour"})

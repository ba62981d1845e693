from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

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
    assert list(BUDGETS) == ["fixed", "choice", "uniform", "log_uniform"]

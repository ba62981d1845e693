"""The study of interaction collapse: its arms differ in what they are to differ in, and no more."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from train.lab.study import study
from train.lab.study.settings import load

PAID = {"neither": False, "ranking": False, "reward": True, "both": True}
RANKED = {"neither": False, "reward": False, "ranking": True, "both": True}


@pytest.fixture
def configs(tmp_path):
    collapse = load("collapse")
    return {cell.arm: cell for cell in study.cells(collapse, tmp_path, collapse.main, [0], False)}


def test_an_arm_has_the_reward_and_the_ranking_that_its_name_says(configs):
    for arm in PAID:
        config = configs[arm].config
        weight = config.env.reward if PAID[arm] else config.env.reward["weights"]["tool_gain"]
        assert weight == ("pyvision" if PAID[arm] else 0.0)
        assert config.selection.rank_by_std == RANKED[arm]


def test_nothing_else_differs(configs):
    def rest(arm):
        told = asdict(configs[arm].config)
        told["env"].pop("reward"), told["selection"].pop("rank_by_std"), told["run"].pop("name")
        return told

    assert rest("neither") == rest("reward") == rest("ranking") == rest("both")
    assert configs["start"].evaluate_only and not configs["both"].evaluate_only

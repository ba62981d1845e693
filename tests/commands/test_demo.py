"""The folder of a demo: an earlier demo makes way for it, nothing else does."""

from __future__ import annotations

import pytest

from train.commands.demo import fresh_folder
from train.common.errors import ConfigError


def test_the_folder_of_an_earlier_demo_is_made_anew(tmp_path):
    folder = fresh_folder(tmp_path / "runs" / "demo")
    for name in ("config.yaml", "after.json"):
        (folder / name).write_text("{}")
    (folder / "checkpoints").mkdir()
    (only,) = fresh_folder(folder).iterdir()
    assert only.name == "demo.txt"


def test_an_empty_folder_is_taken(tmp_path):
    assert [path.name for path in fresh_folder(tmp_path).iterdir()] == ["demo.txt"]


def test_a_training_run_of_the_same_name_stays(tmp_path):
    kept = tmp_path / "paragrpo_mini" / "config.yaml"
    kept.parent.mkdir()
    kept.write_text("run: {}")
    with pytest.raises(ConfigError, match=r"no demo made.*--run\.name=NAME"):
        fresh_folder(kept.parent)
    assert kept.read_text() == "run: {}"

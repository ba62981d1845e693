"""The notebook's cells run from top to bottom, with a few turns of training."""

import json
from pathlib import Path

import pytest
from stable_baselines3 import PPO

from docs_site.links import notebook
from paravt_env.tasksets.made.synthetic import DEFAULT_VIDEOS

NOTEBOOK = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"


def cells(kind):
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == kind]


def test_the_cells_run(tmp_path, monkeypatch, capsys):
    learn = PPO.learn
    monkeypatch.setattr(PPO, "learn", lambda self, steps, **words: learn(self, 512, **words))
    monkeypatch.setenv("PARAVT_CACHE", str(tmp_path))
    for split in DEFAULT_VIDEOS:
        monkeypatch.setitem(DEFAULT_VIDEOS, split, 1)
    names = {"__name__": "notebook"}
    for number, cell in enumerate(cells("code")):
        small = cell.replace('"videos": 24', '"videos": 2')
        exec(compile(small, f"cell {number}", "exec"), names)
    said = capsys.readouterr().out
    assert "how many symbols flash?" in said.lower() and "<CropStatus.ok: 'ok'>, 4)]" in said
    assert said.count("over 8 episodes") == 2


def test_its_page_has_the_text_and_the_code():
    page = notebook(NOTEBOOK)
    assert page.startswith("# From `gym.make`") and page.count("```python") == len(cells("code"))
    assert "Output:" not in page
    assert "](../tutorials/own-videos.md)" in page and "../docs" not in page


def test_a_printed_output_is_on_the_page(tmp_path):
    cell = {"cell_type": "code", "source": ["print(1)"], "outputs": [{"text": ["1\n"]}]}
    path = tmp_path / "x.ipynb"
    path.write_text(json.dumps({"cells": [cell]}))
    assert notebook(path) == "```python\nprint(1)\n```\n\nOutput:\n\n    1\n"


@pytest.mark.parametrize("line", "\n".join(cells("code")).splitlines())
def test_its_lines_are_short(line):
    assert len(line) <= 100

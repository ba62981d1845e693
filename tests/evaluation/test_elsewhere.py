"""`paravt compare --lmms-eval`: another Python scores both reports first."""

import json
import stat
import sys

import pytest
from support.evaluations import report, row

from train.cli import main
from train.common.errors import ConfigError
from train.evaluation.elsewhere import scored_by_lmms_eval

OTHER = """#!{python}
import json, sys
words = sys.argv[1:]
assert words[:2] == ["-m", "train.adapters.lmms_eval"], words
task = words[words.index("--task") + 1]
if task == "unknown":
    sys.exit("first line\\nerror: no task unknown")
content = json.load(open(words[2]))
for row in content["rows"]:
    row["score"] = 1.0 - row["score"]
content["settings"]["scorer"] = " ".join(["other", task, *words[7:]])
json.dump(content, open(words[words.index("--output") + 1], "w"))
"""


@pytest.fixture
def python(tmp_path):
    """A program that stands for the other environment's interpreter: it turns scores round."""
    path = tmp_path / "python"
    path.write_text(OTHER.format(python=sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def reports(tmp_path):
    paths = [tmp_path / "first.json", tmp_path / "second.json"]
    for path, scores in zip(paths, ((1.0, 0.0), (1.0, 1.0)), strict=True):
        report(row("a", scores[0]), row("b", scores[1])).save(path)
    return paths


def test_both_reports_have_the_other_scores(reports, python, tmp_path, capsys):
    words = ["compare", *map(str, reports), "--json", str(tmp_path / "c.json")]
    other = ["--lmms-eval", python, "--lmms-task", "videomme", "--lmms-metric", "score"]
    assert main([*words, *other]) == 0
    assert "scored by other videomme --metric score" in capsys.readouterr().out
    found = json.loads((tmp_path / "c.json").read_text())
    assert (found["parts"]["all"]["first"], found["parts"]["all"]["second"]) == (0.5, 0.0)
    assert (found["better"], found["worse"], found["equal"]) == (0, 1, 1)


def test_what_the_other_program_said_last_is_the_error(reports, python, tmp_path, capsys):
    with pytest.raises(ConfigError, match="not scored by lmms-eval: error: no task unknown"):
        scored_by_lmms_eval(reports[0], python, "unknown")
    with pytest.raises(ConfigError, match="cannot be run"):
        scored_by_lmms_eval(reports[0], str(tmp_path / "nowhere"), "videomme")
    assert main(["compare", *map(str, reports), "--lmms-task", "videomme"]) == 2
    assert "give --lmms-eval PYTHON and --lmms-task NAME together" in capsys.readouterr().err

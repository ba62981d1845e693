"""`paravt data reason`: from the words of a command to a set, and what it says."""

import json
from pathlib import Path

import pytest
from support.builders import make_clip
from support.chat_servers import serving

from train import cli


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def reply(body):
    system = body["messages"][0]["content"]
    if system.startswith("You describe"):
        return "A number changes."
    if system.startswith("You write"):
        told = json.loads(body["messages"][1]["content"])
        item = {
            "question": f"What changes, of the {told['category'].partition(':')[0]} kind?",
            "reasoning": "A number changes.", "answer": "a number", "wrong": ["a face"],
            "clips": [1],
        }  # fmt: skip
        return json.dumps({"questions": [item]})
    letters = json.loads(body["messages"][1]["content"][-1]["text"])["options"]
    knows = "not seen" not in system
    letter = next(key for key, text in letters.items() if (text == "a number") == knows)
    return json.dumps({"reasoning": "", "answer": letter})


def run(folder, *words):
    (folder / "films").mkdir(exist_ok=True)
    make_clip(folder / "films")
    return cli.main(["data", "reason", f"--source={folder / 'films'}", f"--output={folder / 'set'}",
                     *words])  # fmt: skip


def test_the_command_makes_a_set_and_says_how_to_train_on_it(tmp_path, capsys):
    with serving(reply) as endpoint:
        servers = [f"--{role}.{key}={value}" for role in ("captioner", "writer")
                   for key, value in (("base_url", endpoint.url), ("model", "m"))]  # fmt: skip
        words = [*servers, "--questions.per_category=1", "--questions.options=2"]
        assert run(tmp_path, *words) == 0
        said = capsys.readouterr().out
        assert "4 rows asked for, 4 kept, 0 rejected, 0 not reached; 1 videos, 3 clips" in said
        assert f"--env.tasks={tmp_path / 'set' / 'manifest.jsonl'}" in said
        written = {path.name for path in (tmp_path / "set").iterdir()}
        assert written == {"manifest.jsonl", "rejected.jsonl", "captions.jsonl", "calls.jsonl",
                           "summary.json", "config.yaml", "report.html"}  # fmt: skip
        assert run(tmp_path, *words, "--checks.solvers=3", "--max_tokens=1") == 1
        assert "the budget is spent" in capsys.readouterr().out
        manifest = str(tmp_path / "set" / "manifest.jsonl")
        assert cli.main(["data", "validate", manifest, "--root", str(tmp_path / "films")]) == 1
        assert run(tmp_path, *words) == 0
        capsys.readouterr()
        assert cli.main(["data", "validate", manifest, "--root", str(tmp_path / "films")]) == 0
        assert "0 problems" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--source="], "give --source, a folder of videos"),
        (["--captioner.base_url=nowhere"], "captioner: a chat server needs base_url"),
        (["--questions.categories=[plots]"], "did you mean 'plot'?"),
        (["--clips.second=3"], "clips.seconds"),
        (["--solvers=[{base_url: 'http://x/v1', model: ''}]"], "solvers[0]: a chat server needs"),
    ],
)
def test_settings_that_cannot_work_are_one_line(tmp_path, capsys, words, said):
    assert run(tmp_path, *words) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_help_and_settings_are_printed(tmp_path, capsys):
    assert cli.main(["data", "reason", "--help"]) == 0
    assert "usage: paravt data reason [RECIPE]" in capsys.readouterr().out
    assert run(tmp_path, "--print-config") == 0
    assert "per_category: 2" in capsys.readouterr().out
    assert not Path(tmp_path / "set").exists()

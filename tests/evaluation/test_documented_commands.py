"""The commands of the pages on evaluation and plug-ins run as they stand, on a small world.

What stands for something of the reader's is there: the checkpoint, the agent's file, the manifest,
the server and the name of its model.
"""

import json
import re
import shlex
from pathlib import Path

import pytest
from support.builders import make_task, write_manifest
from support.chat_servers import completion, serving

from agents.model.vlm import CHECKPOINTS
from paravt_env.protocol import render_completion
from train import cli
from train.config import recipe

DOCS = Path(__file__).parents[2] / "docs"
PLACES = ("http://localhost:8000/v1", "https://api.example.com/v1")


def blocks(page, language):
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(page):
    """The words of every `paravt eval` of a page that is written out."""
    text = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    said = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [words[1:] for words in said if words[:2] == ["paravt", "eval"] and "..." not in words]


COMMANDS = [
    (page, words) for page in ("evaluation.md", "plug-in-an-agent.md") for words in commands(page)
]


@pytest.fixture
def server():
    with serving(completion(render_completion("It is blue.", answer="B"))) as running:
        yield running


@pytest.fixture
def small(tmp_path, clip, server, monkeypatch):
    """The reader's folder, and recipes whose world has one video of which two tasks are asked."""
    read = recipe.read_settings

    def smaller(path):
        settings = read(path)
        if path.parent == recipe.RECIPES and "base" not in settings:
            settings.setdefault("env", {}).setdefault("tasks_kwargs", {})["videos"] = 1
            settings.setdefault("evaluation", {}).update(tasks=2, num_envs=2)
        return settings

    monkeypatch.setattr(recipe, "read_settings", smaller)
    monkeypatch.setenv("PARAVT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MY_KEY", "secret")
    monkeypatch.chdir(tmp_path)
    agent = blocks("plug-in-an-agent.md", "python")[0]
    (tmp_path / "my_agent.py").write_text(f"{agent}\n\nMyAgent = MiddleAgent\n")
    (tmp_path / "clip.mp4").hardlink_to(clip)
    write_manifest(
        tmp_path / "my_videos.jsonl", [make_task("clip.mp4"), make_task("clip.mp4", "b")]
    )
    checkpoint = tmp_path / "runs" / "demo" / "checkpoints" / "step-000052" / "model"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.symlink_to(CHECKPOINTS / "paravt_mini")
    return tmp_path


def test_the_pages_have_the_commands():
    assert len(COMMANDS) == 6
    assert sum("--env.tasks" in words for _, words in COMMANDS) == 2


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=lambda one: str(one)[:60])
def test_a_documented_evaluation_runs(small, server, capsys, page, words):
    given = [server.url if word in PLACES else word for word in words]
    status = cli.main(given)
    said = capsys.readouterr()
    assert status == 0, said.out + said.err
    (path,) = small.glob("runs/*/after.json")
    rows = json.loads(path.read_text())["rows"]
    assert len(rows) == 2 and not any(row["error"] for row in rows)
    if "my_videos.jsonl" in words:
        assert {row["task_id"] for row in rows} == {"colour", "b"}
        assert said.err.count("is left out: it belongs to env.tasks=synthetic") == 1

"""Every code block of README and of the docs runs, long ones in their small form.

The blocks of a page share their names and a folder, from top to bottom. A block whose text before
it says "`NAME.py`" is saved under that name, too. What stands for something of the reader's is
there: videos, manifests, runs, a chat server. `support/shell_blocks.py` runs shell commands.
"""

import re
import shutil
from pathlib import Path

import pytest
import torch
from stable_baselines3 import PPO
from support.builders import make_task, write_manifest
from support.chat_servers import completion, serving
from support.published_rows import VIDEO_MME, write_rows
from support.shell_blocks import copy_run, lines_of, run_line, small_recipes
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from paravt_env.protocol import render_completion
from paravt_env.tasksets.made.synthetic import DEFAULT_VIDEOS
from train import cli

ROOT = Path(__file__).parents[2]
WRITTEN = sorted((ROOT / "docs").rglob("*.md"))
PAGES = ["README.md", *(str(path.relative_to(ROOT)) for path in WRITTEN)]
SHELL = ("sh", "bash")
SHOWN = ("text", "json", "yaml", "pycon")
"""Blocks that show something; `tests/policies/test_openai_agent.py` runs the sessions (pycon)."""
OTHER_ENVIRONMENTS = {"docs/adapters.md": "python"}
"""Pages whose Python needs packages of another environment (`make test-adapters`)."""
TRAINING = ("README.md", "docs/tutorials/")
"""Pages whose training and evaluations run; of the others `tests/evaluation/
test_documented_commands.py` runs the evaluations, and here the settings are checked."""
RUNS = ("demo", "before", "after", "paragrpo_mini", "one_crop", "calm", "cold_start", "rl")
"""Runs that pages take for granted."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def made(tmp_path_factory, cache):
    """A run of one step, trained and evaluated, which pages find under other names."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PARAVT_CACHE", str(cache))
        small_recipes(patch)
        torch.set_num_threads(1)
        assert cli.main(["train", "paragrpo_mini", "--run.steps=1"]) == 0
        (model,) = folder.glob("runs/paragrpo_mini/checkpoints/step-*/model")
        assert cli.main(["eval", "paragrpo_mini", "--agent.checkpoint", str(model)]) == 0
    return folder / "runs" / "paragrpo_mini"


@pytest.fixture
def url():
    with serving(completion(render_completion("It is blue.", answer="B"))) as running:
        yield running.url


@pytest.fixture
def place(tmp_path, clip, cache, monkeypatch):
    """The reader's folder."""
    small_recipes(monkeypatch)
    monkeypatch.setenv("PARAVT_CACHE", str(cache))
    monkeypatch.setenv("MY_KEY", "secret")
    for split in DEFAULT_VIDEOS:
        monkeypatch.setitem(DEFAULT_VIDEOS, split, 1)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    learn = PPO.learn
    monkeypatch.setattr(PPO, "learn", lambda self, steps, **words: learn(self, 512, **words))
    (tmp_path / "my").mkdir()
    for name in ("kitchen", "garden", "street", "clip"):
        shutil.copy(clip, tmp_path / "my" / f"{name}.mp4")
    shutil.copy(clip, tmp_path / "clip.mp4")
    tasks = [make_task("clip.mp4"), make_task("clip.mp4", "b")]
    for path in ("my/tasks.jsonl", "my_videos.jsonl", "train.jsonl"):
        write_manifest(tmp_path / path, tasks)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "constraints.txt").symlink_to(ROOT / "constraints.txt")
    plugged = (ROOT / "docs" / "plug-in-an-agent.md").read_text(encoding="utf-8")
    agent = re.findall(r"```python\n(.*?)```", plugged, re.DOTALL)[0]
    (tmp_path / "my_agent.py").write_text(f"{agent}\n\nMyAgent = MiddleAgent\n")
    data = tmp_path / "data" / "Video-MME"
    data.mkdir(parents=True)
    write_rows(data / "test.parquet", VIDEO_MME)
    return tmp_path


def saved_as(text: str) -> str:
    """The file that the paragraph before a block names, or nothing."""
    named = re.findall(r"`(\w+\.py)`", text.rpartition("\n\n")[0].rpartition("```")[2])
    return named[-1] if named else ""


def makes(text: str, run: str) -> bool:
    """Whether the commands of a page train or evaluate under this name."""
    return re.search(rf"--run.name[ =]{run}\b", text) is not None


def checked(example, url, trains):
    for line in lines_of(example.parsed):
        run_line(line, url, trains)


def blocks(page, url):
    """The page's blocks, each ready to be evaluated."""
    trains = page.startswith(TRAINING)
    shells = [CodeBlockParser(name, lambda one: checked(one, url, trains)) for name in SHELL]
    parsers = shells if page in OTHER_ENVIRONMENTS else [PythonCodeBlockParser(), *shells]
    return Sybil(parsers, path=str(ROOT)).parse(ROOT / page)


def test_every_block_has_a_language_that_is_run_or_shown():
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        opened = re.findall(r"^```(.*)$", text, re.MULTILINE)[::2]
        assert set(opened) <= {"python", *SHELL, *SHOWN}, page


def test_shell_lines_that_nobody_can_check_are_errors():
    with pytest.raises(AssertionError, match="say in tests/support"):
        run_line("frobnicate --now", "")
    with pytest.raises(AssertionError, match="nothing"):
        run_line("make nothing", "")
    with pytest.raises(AssertionError, match="status 2"):
        run_line("paravt train paragrpo_mini --env.no_such_key=1 --print-config", "")


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(page, place, made, url):
    document = blocks(page, url)
    copy_run(made, tuple(name for name in RUNS if not makes(document.text, name)))
    for example in document.examples():
        name = saved_as(document.text[: example.start])
        if name and document.text[example.start :].startswith("```python"):
            Path(name).write_text(example.parsed, encoding="utf-8")
        example.evaluate()

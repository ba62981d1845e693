"""What `pip install paravt` brings: built as a wheel, installed, run in an empty directory."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from train import cli

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = ("envs_registry", "paravt_env", "agents", "train")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(source))
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    target = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--target", str(target), str(wheel))
    return target


def pip(*words):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def run(installed, folder, *command):
    """Run a command in an empty directory, with the installed packages before all others."""
    path = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=path, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_file_of_the_packages_is_in_the_wheel(wheel):
    there = {
        str(path.relative_to(ROOT))
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == there
    assert {f"{name}/py.typed" for name in PACKAGES} <= packed
    assert "agents/checkpoints/paravt_mini/README.md" in packed


def test_the_installed_commands_run_in_an_empty_directory(installed, tmp_path):
    paravt = str(installed / "bin" / "paravt")
    assert run(installed, tmp_path, paravt, "--version") == f"paravt {PROJECT['version']}\n"
    printed = run(installed, tmp_path, paravt, "train", "paragrpo_mini", "--print-config")
    assert yaml.safe_load(printed)["run"]["name"] == "paragrpo_mini"
    code = "import agents, train, paravt_env, envs_registry; print(train.__file__, agents.__file__)"
    places = run(installed, tmp_path, sys.executable, "-c", code).split()
    assert all(place.startswith(str(installed)) for place in places)
    code = (
        "import gymnasium, paravt_env, sys; print(len(gymnasium.spec('ParaVT-LongVideo-v0').id));"
        "from agents.model.vlm import VisionLanguageModel as V; print(V.load('paravt_mini').merge)"
    )
    assert run(installed, tmp_path, sys.executable, "-c", code).split() == ["19", "2"]
    assert list(tmp_path.iterdir()) == []


def test_the_version_of_the_installed_project(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert re.fullmatch(r"paravt \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def test_the_page_on_installing_lists_every_extra():
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    table = page[page.index("| extra | for |") :].split("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    listed = {name for row in rows for name in re.findall(r"`([\w-]+)`", row)}
    assert listed == set(PROJECT["optional-dependencies"])


def test_the_citation_and_the_changelog_are_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == PROJECT["version"] and cited["license"] == PROJECT["license"]
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {PROJECT['version']}\n" in changes


def test_the_model_card_says_what_was_measured():
    card = (ROOT / "agents/checkpoints/paravt_mini/README.md").read_text(encoding="utf-8")
    head, body = card.split("---\n")[1:3]
    assert yaml.safe_load(head)["license"] == "apache-2.0"
    measured = (ROOT / "benchmarks/results/cold_start.txt").read_text(encoding="utf-8")
    rows, accuracy, low, high, majority = re.search(
        r"^all +(\d+) +([\d.]+) \[([\d.]+), ([\d.]+)\] +([\d.]+)", measured, re.MULTILINE
    ).groups()
    assert f"{rows} test questions" in body
    share = [f"{100 * float(value):.1f}" for value in (accuracy, low, high, majority)]
    assert "{} % [{}, {}]".format(*share[:3]) in body and f"{share[3]} %" in body

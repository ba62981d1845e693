"""`paravt serve`: what it refuses, and what is said where OpenEnv is not installed."""

import importlib.util

import pytest

from train import cli

OPENENV = importlib.util.find_spec("openenv") is not None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give --openenv"),
        (["--openenv", "--env.servers=[http://a:1]"], "a server plays its rows itself"),
        (["--openenv", "no_such_recipe"], "no_such_recipe"),
    ],
)
def test_what_cannot_be_served(words, said, capsys):
    assert cli.main(["serve", *words]) == 2
    assert said in capsys.readouterr().err


def test_bad_numbers_are_refused(capsys):
    for words in (["--sessions", "0"], ["--port", "x"], ["--pictures", "gif"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["serve", "--openenv", *words])
        assert stopped.value.code == 2


def test_the_recipes_settings_are_served(capsys):
    assert cli.main(["serve", "--openenv", "vanilla_grpo_mini", "--print-config"]) == 0
    assert "frame_budget: 16" in capsys.readouterr().out


@pytest.mark.skipif(OPENENV, reason="OpenEnv is installed")
def test_without_openenv_one_line_says_what_to_install(capsys):
    assert cli.main(["serve", "--openenv"]) == 2
    assert "pip install 'paravt[openenv]'" in capsys.readouterr().err


@pytest.mark.skipif(OPENENV, reason="OpenEnv is installed")
def test_a_recipe_with_servers_says_what_to_install(capsys):
    from train.config.env import EnvConfig

    with pytest.raises(ImportError, match=r"pip install 'paravt\[openenv\]'"):
        EnvConfig(servers=("http://127.0.0.1:1",), tasks_kwargs={"videos": 1}).make(1)

"""What several commands read in the same way: whole numbers, and a recipe with its overrides.

Used by the files of this folder. Tests: `pytest tests/commands/test_cli.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TypeVar

from train.common.errors import ConfigError

Config = TypeVar("Config")

RECIPE_HELP = """usage: {prog} [RECIPE] [--key.sub VALUE ...] [--print-config]

{title}

RECIPE        name of a packaged recipe, or path of a YAML file; --config RECIPE says the same
--key.sub     overrides one setting; --print-config lists all of them

recipes:
{recipes}
"""

EVALUATED, DEMO, REASON = ("chat", "paravt7"), "demo", "reason"
"""Recipes that are for `paravt eval` alone, that of `paravt demo`, that of `paravt data reason`."""


def command_of(recipe: str) -> str:
    """The command that a packaged recipe is for.

    >>> command_of("sft_mini"), command_of("paragrpo_8b"), command_of("chat"), command_of("reason")
    ('sft', 'train', 'eval', 'data reason')
    """
    if recipe in EVALUATED:
        return "eval"
    if recipe == REASON:
        return "data reason"
    return "demo" if recipe == DEMO else "sft" if recipe.startswith("sft_") else "train"


def recipe_rows() -> dict[str, list[tuple[str, str]]]:
    """Name and first line of every packaged recipe, by the command that it is for."""
    from train.config.recipe import RECIPES, recipe_names

    rows: dict[str, list[tuple[str, str]]] = {}
    for name in recipe_names():
        first = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
        rows.setdefault(command_of(name), []).append((name, first.removeprefix("# ")))
    return rows


def recipe_list(command: str) -> str:
    """The recipes of a command, one line each; an evaluation takes those of training too."""
    wanted = ("eval", "train") if command == "eval" else (command,)
    rows = [row for name, group in recipe_rows().items() if name in wanted for row in group]
    return "\n".join(f"  {name:22}{said}" for name, said in rows)


def whole(least: int) -> Callable[[str], int]:
    """The type of an option that is a whole number of at least `least`.

    >>> whole(1)("3")
    3
    """

    def read(text: str) -> int:
        if not text.strip().removeprefix("+").isdecimal() or int(text) < least:
            message = f"{text!r} is not a whole number of at least {least}"
            raise argparse.ArgumentTypeError(message)
        return int(text)

    return read


def recipe_settings(
    parser: argparse.ArgumentParser, kind: type[Config], words: Sequence[str], default: str
) -> Config | None:
    """The settings of a command that runs a recipe; None where they, or help, were only printed.

    Args:
        parser: Its name and title stand in the help.
        kind: Dataclass that the recipe describes.
        words: `[RECIPE] [--key.sub VALUE ...] [--print-config]`.
        default: Recipe where none is named.

    Raises:
        ConfigError: Unknown recipe or key, wrong type, value out of range.
    """
    from train.config import recipe  # here, because `data` and `play` need no jsonargparse
    from train.config.env import EnvConfig

    rest = list(words)
    if "-h" in rest or "--help" in rest:
        known = recipe_list(parser.prog.partition(" ")[2])
        said = RECIPE_HELP.format(prog=parser.prog, title=parser.description, recipes=known)
        print(said, end="")
        return None
    name = default
    if rest and not rest[0].startswith("--") and "=" not in rest[0]:
        name = rest.pop(0)
    for place, word in enumerate(rest):
        if word == "--config" and place + 1 < len(rest):
            name = rest[place + 1]
            del rest[place : place + 2]
            break
        if word.startswith("--config="):
            name = rest.pop(place).partition("=")[2]
            break
    settings = recipe.load(kind, name, [word for word in rest if word != "--print-config"])
    env = getattr(settings, "env", None)
    if isinstance(env, EnvConfig):
        try:
            env.check_reward()
        except ValueError as error:
            raise ConfigError(f"env.reward: {error}") from error
    if "--print-config" in rest:
        print(recipe.as_yaml(settings), end="")
        return None
    return settings

"""The reference pages hold every name of the code with the code's own sentence."""

import dataclasses
import typing
from dataclasses import dataclass, field
from enum import Enum

import pytest

from docs_site import reference
from docs_site.sentences import of_fields, of_members
from paravt_env.crop import CropStatus
from paravt_env.episode.episode import StopReason
from train.config.reason import ReasonConfig
from train.config.recipe import recipe_names
from train.config.run import TrainConfig
from train.config.sft import SFTConfig
from train.rollout.play import UNPLAYED


@dataclass
class Base:
    """A base.

    Attributes:
        first: told in the docstring,
            on two lines
    """

    first: int = 1


@dataclass
class Derived(Base):
    """One more."""

    second: tuple[int, ...] = (1, 2)
    """told under
    the field"""
    silent: dict = field(default_factory=dict)


class Kind(Enum):
    """Two."""

    one = "one"  # the first | of two
    two = "two"  # the second


def keys_of(kind, prefix=""):
    hints = typing.get_type_hints(kind)
    for one in dataclasses.fields(kind):
        hint = hints[one.name]
        if dataclasses.is_dataclass(hint):
            yield from keys_of(hint, f"{prefix}{one.name}.")
        else:
            yield prefix + one.name


def test_sentences_are_read_from_the_source():
    assert of_fields(Derived) == {
        "first": "Told in the docstring, on two lines.",
        "second": "Told under the field.",
    }
    assert of_members(Kind) == {"one": "The first | of two.", "two": "The second."}


@pytest.mark.parametrize("kind", [TrainConfig, SFTConfig, ReasonConfig])
def test_every_key_has_a_sentence(kind):
    page = reference.recipe_keys()
    wanted = [name for name in keys_of(kind) if name not in ("stages", "solvers")]
    assert [name for name in wanted if f"| `{name}` | " not in page] == []
    assert "| `stages[].steps` | " in page and "| `solvers[].base_url` | " in page
    assert len(wanted) > 20


def test_a_key_shows_its_type_and_default():
    row = "| `run.steps` | Updates of the whole run.<br>*int*, default `100` |"
    assert row in reference.recipe_keys().splitlines()


def test_every_status_and_reason_has_a_sentence():
    page = reference.statuses()
    words = [*CropStatus, *StopReason, *UNPLAYED]
    assert [word for word in words if f"| `{word}` | " not in page] == []
    assert "| `ok` | Its frames were decoded. |" in page


def test_every_recipe_and_command_is_listed():
    recipes = reference.recipes()
    assert [name for name in recipe_names() if f"| {name} | " not in recipes] == []
    assert "## `paravt sft`" in recipes
    assert "| `paravt train` | " in reference.commands()


def test_the_modules_of_the_api_are_there():
    for modules in reference.API.values():
        for name in modules:
            path = reference.ROOT.joinpath(*name.split("."))
            assert path.with_suffix(".py").is_file(), name

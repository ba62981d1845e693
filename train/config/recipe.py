"""Recipes: YAML files and dotted overrides become typed dataclasses, or an error that helps.

Before the journey starts: every command that trains or evaluates reads its settings here. A recipe
is a YAML file whose keys are the fields of one dataclass; `base: <recipe>` at any level starts from
another file and changes only what is written. See what would run with `paravt train paragrpo_mini
--print-config`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import sys
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jsonargparse
import yaml

from paravt_env.common.files import write_whole
from paravt_env.common.names import known_name
from train.common.errors import ConfigError
from train.config.choices import groups, without_foreign
from train.config.learner import OptimizerConfig, PackingConfig

Config = TypeVar("Config")
MOVED = {
    "parallel.servers": "parallel.generator_ranks",
    **{
        f"algorithm.{field.name}": f"{group}.{field.name}"
        for group, kind in (("optimizer", OptimizerConfig), ("packing", PackingConfig))
        for field in dataclasses.fields(kind)
    },
}
"""Keys of older recipes, and what they are called now."""
RECIPES = Path(__file__).parents[1] / "recipes"


def recipe_names() -> list[str]:
    """Names of the packaged recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load(
    kind: type[Config],
    recipe: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> Config:
    """The settings that will run.

    Args:
        kind: Dataclass that the recipe describes.
        recipe: Name of a packaged recipe or path of a YAML file; None takes the defaults.
        overrides: `--key.sub=value`, `key.sub=value`, or `--key.sub` followed by its value; or a
            mapping from dotted names to values.

    Raises:
        ConfigError: Unknown recipe or key, wrong type, value out of range.
    """
    settings = read_recipe(kind, recipe) if recipe is not None else {}
    given = overrides.items() if isinstance(overrides, Mapping) else _pairs(overrides)
    named = [(key.replace("-", "_"), value) for key, value in given]
    pairs = [(name, typed(value) if _is_free(kind, name) else value) for name, value in named]
    changes: dict[str, Any] = {}
    for key, value in pairs:
        _assign(changes, key, value)
    settings = _kept(kind, settings, changes, {key for key, _ in pairs})
    for key, value in pairs:
        _assign(settings, key, value)
    return build(kind, settings)


def typed(value: Any) -> Any:
    """What a word of the command line means where no type says so: JSON, a YAML list, or text.

    >>> typed("0"), typed("1e-3"), typed("true"), typed("[4, 8]"), typed("[a, b]"), typed("cpu")
    (0, 0.001, True, [4, 8], ['a', 'b'], 'cpu')
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        pass
    if value[:1] in ("[", "{"):
        try:
            return yaml.safe_load(value)
        except yaml.YAMLError:
            return value
    return value


def _is_free(kind: Any, name: str) -> bool:
    """Whether a dotted name leads into a mapping whose values have no type of their own."""
    for part in name.split("."):
        if not dataclasses.is_dataclass(kind):
            return True
        kind = _fields(kind).get(part)
    return False


def _kept(
    kind: Any,
    settings: Mapping[str, Any],
    changes: Mapping[str, Any],
    replaced: Collection[str] | None = None,
) -> dict[str, Any]:
    """The settings without arguments of choices that the changes replace; says what is left out."""
    kept, said = without_foreign(kind, settings, changes, replaced)
    for line in said:
        print(f"paravt: {line}", file=sys.stderr, flush=True)
    return kept


def read_recipe(kind: Any, recipe: str | Path, trail: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The nested settings of a recipe, its `base` recipes merged in; no value is checked yet."""
    path = Path(recipe)
    if path.suffix not in (".yaml", ".yml"):
        try:
            path = RECIPES / f"{known_name('recipe', str(recipe), recipe_names())}.yaml"
        except ValueError as error:
            raise ConfigError(str(error)) from error
    path = path.resolve()
    if not path.is_file():
        raise ConfigError(f"no recipe at {path}; packaged ones: {', '.join(recipe_names())}")
    if path in trail:
        raise ConfigError(f"recipe {path} is its own base")
    return _expand(kind, read_settings(path), (*trail, path))


def read_settings(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds; {} where it is empty.

    Raises:
        ConfigError: It holds something else.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} holds {type(settings).__name__}, not a mapping of settings")
    return settings


def _expand(kind: Any, settings: dict[str, Any], trail: tuple[Path, ...]) -> dict[str, Any]:
    inner = groups(kind)
    own = {
        key: _expand(inner[key], value, trail)
        if key in inner and isinstance(value, dict)
        else value
        for key, value in settings.items()
        if key != "base"
    }
    if "base" not in settings:
        return own
    base = Path(str(settings["base"]))
    base = trail[-1].parent / base if base.suffix else base
    settings = read_recipe(kind, base, trail)
    return _merge(kind, _kept(kind, settings, own), own)


def _merge(kind: Any, base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` over `base`, group by group; a mapping that is a value is replaced whole."""
    inner = groups(kind)
    merged = dict(base)
    for key, value in changes.items():
        both = key in inner and isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(inner[key], base[key], value) if both else value
    return merged


def _pairs(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    words = iter(overrides)
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        if not equals:
            if not word.startswith("--"):
                raise ConfigError(f"{word!r} is not an override; write --key.sub=value")
            following = next(words, None)
            if following is None:
                raise ConfigError(f"{word} has no value; write {word}=value")
            value = following
        yield key, value


def _assign(settings: dict[str, Any], key: str, value: Any) -> None:
    *groups, name = key.split(".")
    for group in groups:
        inner = settings.setdefault(group, {})
        if not isinstance(inner, dict):
            inner = settings[group] = {}
        settings = inner
    settings[name] = value


def build(kind: type[Config], settings: Mapping[str, Any]) -> Config:
    """A checked `kind` from nested plain settings; strings are converted to the fields' types.

    Raises:
        ConfigError: Unknown key (the nearest one is named), wrong type, value out of range, or a
            number that is not finite.
    """
    known = list(_keys(kind))
    for key in _unknown(kind, settings):
        if MOVED.get(key) in known:
            raise ConfigError(f"{key} is {MOVED[key]} now: write it there")
        raise ConfigError(f"unknown key {key!r}; did you mean {_nearest(key, known)!r}?")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "settings")
    try:
        parsed = parser.parse_object({"settings": dict(settings)})
        built = parser.instantiate(parsed).settings
    except (ValueError, TypeError, jsonargparse.ArgumentError) as error:
        message = " ".join(str(error).replace('"settings.', '"').split())
        raise ConfigError(message) from error
    for name, number in _numbers(built):
        if not math.isfinite(number):
            raise ConfigError(f"{name} = {number}: a finite number is needed")
    return built


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """All floats among nested settings, by dotted name."""
    if isinstance(value, float):
        yield name, value
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}.{key}" if name else str(key))


def _fields(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _keys(kind: Any, prefix: str = "") -> Iterator[str]:
    for name, hint in _fields(kind).items():
        yield prefix + name
        if dataclasses.is_dataclass(hint):
            yield from _keys(hint, f"{prefix}{name}.")


def _unknown(kind: Any, settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    fields = _fields(kind)
    for name, value in settings.items():
        hint = fields.get(name)
        if hint is None:
            yield f"{prefix}{name}"
        elif dataclasses.is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{prefix}{name} is a group of settings, not {value!r}")
            yield from _unknown(hint, value, f"{prefix}{name}.")


def _nearest(key: str, known: Sequence[str]) -> str:
    def likeness(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, key, candidate).ratio()
        last = difflib.SequenceMatcher(None, key.split(".")[-1], candidate.split(".")[-1]).ratio()
        return whole + last

    return max(known, key=likeness)


def as_yaml(config: Any) -> str:
    """The resolved settings as a recipe: loading the text gives an equal config."""
    return yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def save(config: Any, folder: Path) -> Path:
    """Write the resolved settings as `config.yaml` into a run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    write_whole(path, as_yaml(config))
    return path

"""From a recipe's `reward` entry to a preset: names, doors and options become weighted terms.

Runs once, when an environment is made and before anything is played, and refuses all that can be
refused by then. Tests: `pytest tests/rewards/test_rewards.py tests/env/test_plugins.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from paravt_env.common.doors import chosen, is_door, opened
from paravt_env.common.names import known_name
from paravt_env.rewards.judge.scorer import LLMJudge
from paravt_env.rewards.judge.settings import make_judge_settings
from paravt_env.rewards.presets import PRESETS, TERMS, RewardPreset
from paravt_env.rewards.terms.answer import Scorer
from paravt_env.rewards.terms.base import Term

ENTRY = ("use", "weight", "options")
"""What a recipe may say of one term."""
Source = Any
"""A term's class, or a term that another one is to be like."""


def make_preset(spec: str | Mapping[str, Any], scorer: Scorer | str | None = None) -> RewardPreset:
    """Build a preset from a recipe.

    Args:
        spec: Name of a preset (or `file.py:name`), or a mapping: `preset` (default "paravt"),
            `weights` that replace single weights, `judge` (see `JudgeSettings`), any option of the
            built-in terms, which goes to each of them that has it, and `terms`: by name, `weight`,
            `options` and, for a term that the preset does not have, `use`, a name of `TERMS` or a
            `file.py:name` of a class. A name alone is short for an entry with `use`.
        scorer: Supplies the answer term's value; see `Answer`. May be `file.py:name`.

    Raises:
        ValueError: An unknown name (the nearest one is given), a value out of range, something
            that is given twice, or a door that leads to something else.

    >>> make_preset({"weights": {"format_anchor": 0.5}, "rescale": True}).weights
    {'answer': 1.0, 'format_anchor': 0.5, 'tool_gain': 1.0}
    """
    if not isinstance(spec, str | Mapping):
        raise ValueError(f"reward must be a preset's name or a mapping, not {spec!r}")
    entries: dict[str, Any] = {"preset": spec} if isinstance(spec, str) else dict(spec)
    name = entries.pop("preset", "paravt")
    preset = chosen("reward preset", name, PRESETS)
    if not isinstance(preset, RewardPreset):
        raise ValueError(f"reward preset {name!r} must lead to a RewardPreset, not {preset!r}")
    weights = _mapping("reward weights", "terms to numbers", entries.pop("weights", None))
    terms = _mapping("reward terms", "names to entries", entries.pop("terms", None))
    judge = entries.pop("judge", None)
    sources: dict[str, tuple[float, Source]] = dict(preset.terms)
    options: dict[str, dict[str, Any]] = {"answer": {}}
    for name, entry in terms.items():
        sources[name], options[name] = _read(name, entry, sources.get(name))
    for name, weight in weights.items():
        known_name("reward term", name, {**sources, **TERMS})
        if isinstance(terms.get(name), Mapping) and "weight" in terms[name]:
            raise ValueError(f"the weight of {name} is given twice: in weights and in terms")
        sources[name] = weight, sources[name][1] if name in sources else TERMS[name]
    _route(entries, sources, options)
    _take_scorer(options["answer"], scorer, judge)
    return RewardPreset(
        {
            name: (weight, _made(name, source, options.get(name, {})))
            for name, (weight, source) in sources.items()
        }
    )


def _mapping(what: str, to_what: str, value: Any) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"{what} must map {to_what}, not {value!r}")
    return value or {}


def _read(
    name: str, entry: Any, known: tuple[float, Source] | None
) -> tuple[tuple[float, Source], dict[str, Any]]:
    """One entry of `terms`: weight and source of the term, and its options.

    Args:
        name: Of the term.
        entry: `use`, `weight` and `options`, or a door.
        known: Weight and term of the preset.
    """
    said = {"use": entry} if is_door(entry) else entry
    said = _mapping(f"reward term {name!r}", f"{', '.join(ENTRY)} to values (or be a door)", said)
    for key in said:
        known_name(f"entry of reward term {name!r}:", key, ENTRY)
    options = _mapping(f"options of reward term {name!r}", "names to values", said.get("options"))
    if known is None or "use" in said:
        use = said.get("use", name)
        known = 1.0, chosen("reward term", use, TERMS) if isinstance(use, str) else use
    weight, source = known
    return (said.get("weight", weight), source), dict(options)


def _route(
    flat: Mapping[str, Any],
    sources: Mapping[str, tuple[float, Source]],
    options: dict[str, dict[str, Any]],
) -> None:
    """Give each option that a recipe says without a term to the built-in terms that have it."""
    owners: dict[str, list[str]] = {}
    for name, (_, source) in sources.items():
        if TERMS.get(name) in (source, type(source)):
            for option in fields(source):
                owners.setdefault(option.name, []).append(name)
    for key, value in flat.items():
        known_name("reward option", key, ["preset", "weights", "terms", "judge", *owners])
        for name in owners[key]:
            if key in options.setdefault(name, {}):
                raise ValueError(f"the option {key} of {name} is given twice: alone and in terms")
            options[name][key] = value


def _take_scorer(answer: dict[str, Any], scorer: Scorer | str | None, judge: Any) -> None:
    """Add the one source of the answer's value to the options of `answer`, doors opened."""
    sources = [one for one in (scorer, judge, answer.get("scorer")) if one is not None]
    if len(sources) > 1:
        raise ValueError("the answer term has one source: give a scorer or a judge, not both")
    if judge is not None:
        answer["scorer"] = LLMJudge(make_judge_settings(judge))
    elif sources:
        only: Any = sources[0]
        answer["scorer"] = opened("answer scorer", only) if is_door(only) else only


def _made(name: str, source: Source, options: Mapping[str, Any]) -> Term:
    """The term of a class, or one like another with other options."""
    if not is_dataclass(source):
        raise ValueError(
            f"reward term {name!r} must be the class of a dataclass (its fields are the options, "
            f"its call, term(transcript), gives the value); {source!r} is none"
        )
    names = [option.name for option in fields(source) if option.init]
    for option in options:
        known_name(f"option of reward term {name!r}:", option, names)
    try:
        term: Any = source(**options) if isinstance(source, type) else replace(source, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"reward term {name!r}: {error}") from error
    return term

"""Choices and their arguments: what goes when another choice is made.

Under `train/config/recipe.py`, which lays a recipe's or the command line's changes over settings.
The arguments of a task set are no arguments of another one: `--env.tasks mine.jsonl` on a recipe of
the synthetic world must not hand its `videos` on, or its folder. The same goes for the options of a
reward preset, the numbers of a frame budget, and what only one engine has. They are left out, and
one line says so. Pure functions of nested plain settings. Tests: `pytest
tests/config/test_choices.py`.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Collection, Mapping
from typing import Any

ARGUMENTS = {
    "EnvConfig": {"tasks": "tasks_kwargs"},
    "RunConfig": {"eval_set": "eval_set_kwargs"},
}
"""Of a group of settings, by its class: a choice and the field that holds its arguments."""
WITHIN = {"EnvConfig": {"reward": "preset", "frame_budget": "kind"}}
"""A field that is a choice's name, or a mapping with the choice under this key and its options."""
ENGINES = {
    "vllm": ("sleep",),
    "vllm_server": (
        *("url", "tensor_parallel", "sync", "learner_address", "sync_deadline"),
        *("timeout", "start_timeout"),
    ),
}
"""Settings of `agent.vllm` that only this engine has."""


def without_foreign(
    kind: Any,
    base: Mapping[str, Any],
    changes: Mapping[str, Any],
    replaced: Collection[str] | None = None,
    prefix: str = "",
) -> tuple[dict[str, Any], list[str]]:
    """`base` without the arguments of what `changes` replaces by another choice.

    Args:
        kind: Dataclass that the settings describe.
        base: Nested settings, or what there is of them.
        changes: Those that will be laid over them.
        replaced: Dotted names of the values that they replace whole, of which nothing needs to be
            said; None: all of them.
        prefix: Of the dotted names in what is said.

    Returns:
        The settings that are left, and one line for each choice that lost arguments.

    >>> from train.config.env import EnvConfig
    >>> of_synthetic = {"tasks_kwargs": {"videos": 8}}
    >>> without_foreign(EnvConfig, of_synthetic, {"tasks": "atari"}, None, "env.")
    ({}, ["env.tasks_kwargs={'videos': 8} is left out: it belongs to env.tasks=synthetic"])
    """
    left, said = dict(base), []
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    for choice, arguments in ARGUMENTS.get(kind.__name__, {}).items():
        old = left.get(choice, defaults[choice])
        if choice in changes and changes[choice] != old and left.get(arguments):
            foreign = left.pop(arguments)
            known = replaced is None or f"{prefix}{arguments}" in replaced
            if not (arguments in changes and known):
                said.append(_line(prefix, arguments, foreign, choice, old))
    for field, key in WITHIN.get(kind.__name__, {}).items():
        old, new = left.get(field, defaults[field]), changes.get(field)
        if not isinstance(new, Mapping):
            continue  # replaced whole, its options too
        if isinstance(old, str) and key not in new:
            left[field] = {key: old}  # an option of the choice that stands
        if isinstance(old, Mapping) and key in new and new[key] != old.get(key):
            foreign = {name: value for name, value in old.items() if name != key}
            left.pop(field)
            whole = replaced is None or f"{prefix}{field}" in replaced
            if foreign and not whole:
                said.append(_line(prefix, field, foreign, f"{field}.{key}", old.get(key)))
    if kind.__name__ == "AgentConfig" and isinstance(left.get("vllm"), Mapping):
        old = left.get("engine", defaults["engine"])
        if changes.get("engine", old) != old:
            own = ENGINES.get(old, ())
            foreign = {name: value for name, value in left["vllm"].items() if name in own}
            left["vllm"] = {n: v for n, v in left["vllm"].items() if n not in own}
            if foreign:
                said.append(_line(prefix, "vllm", foreign, "engine", old))
    if {"env", "evaluation"} <= defaults.keys():
        said += _of_a_suite(left, changes, prefix)
    for group, inner in groups(kind).items():
        if isinstance(left.get(group), Mapping) and isinstance(changes.get(group), Mapping):
            left[group], more = without_foreign(
                inner, left[group], changes[group], replaced, f"{prefix}{group}."
            )
            said += more
    return left, said


def _of_a_suite(left: dict[str, Any], changes: Mapping[str, Any], prefix: str) -> list[str]:
    """A suite brings its own task sets: arguments of the one that stands are no arguments of them.

    Changes `left`; returns what to say.
    """
    suites = [(one.get("evaluation") or {}).get("suite", "") for one in (changes, left)]
    env = left.get("env") or {}
    if not suites[0] or suites[0] == suites[1] or not env.get("tasks_kwargs"):
        return []
    foreign = env["tasks_kwargs"]
    left["env"] = {name: value for name, value in env.items() if name != "tasks_kwargs"}
    return [_line(prefix, "env.tasks_kwargs", foreign, "env.tasks", env.get("tasks", "synthetic"))]


def _line(prefix: str, field: str, arguments: Any, choice: str, old: Any) -> str:
    return f"{prefix}{field}={arguments} is left out: it belongs to {prefix}{choice}={old}"


def groups(kind: Any) -> dict[str, Any]:
    """Fields of a dataclass that are dataclasses themselves."""
    hints = typing.get_type_hints(kind)
    named = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    return {name: hint for name, hint in named.items() if dataclasses.is_dataclass(hint)}

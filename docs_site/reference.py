"""Reference pages made from the code: commands, recipes, recipe keys, metrics, statuses, the API.

`docs_site/hooks.py` hands them to MkDocs; nothing of them is kept in `docs/`. Print one with
`python -m docs_site.reference recipe-keys`. Tests: `pytest tests/docs/test_reference.py`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs_site.sentences import first_paragraph, of_fields, of_members
from paravt_env.crop import CropStatus
from paravt_env.episode.episode import StopReason
from train.cli import COMMANDS
from train.commands.options import recipe_rows
from train.common.glossary import SECTIONS
from train.config.reason import ReasonConfig
from train.config.run import TrainConfig
from train.config.sft import SFTConfig

ROOT = Path(__file__).parents[1]
API = {
    "Environment": (
        "paravt_env.env", "paravt_env.vector", "paravt_env.settings", "paravt_env.spaces",
        "paravt_env.budget", "paravt_env.task", "paravt_env.crop", "paravt_env.episode.episode",
    ),
    "Wrappers": (
        "paravt_env.wrappers.text", "paravt_env.wrappers.arrays", "paravt_env.wrappers.recorders",
        "paravt_env.wrappers.reward_terms",
    ),
    "Rewards and protocol": (
        "paravt_env.rewards.presets", "paravt_env.rewards.transcript",
        "paravt_env.rewards.terms.answer", "paravt_env.rewards.terms.format_anchor",
        "paravt_env.rewards.terms.tool_gain", "paravt_env.rewards.judge.settings",
        "paravt_env.protocol.parser", "paravt_env.protocol.styles",
    ),
    "Video": (
        "paravt_env.video.types", "paravt_env.video.sampler", "paravt_env.video.store.store",
    ),
    "Agents": (
        "agents.base", "agents.config", "agents.scripted", "agents.model.agent",
        "agents.chat.agent", "agents.sb3.agent",
    ),
    "Algorithm": (
        "agents.algorithm.config", "agents.algorithm.advantages", "agents.algorithm.losses",
        "agents.algorithm.credit",
    ),
    "Training": (
        "train.rollout.play", "train.rollout.starts", "train.loop.launch", "train.loop.trainer",
        "train.loop.observers", "train.config.recipe",
    ),
    "Evaluation": (
        "train.evaluation.evaluate", "train.evaluation.row", "train.evaluation.scores",
        "train.evaluation.compare",
    ),
}  # fmt: skip
"""Modules of the API reference, by page section."""
OUTCOMES = {
    "agent_error": "The agent could not decide: a server is gone, a request timed out.",
}
"""Stop reasons that a rollout adds to those of the environment."""


def commands() -> str:
    """Every command in one line."""
    rows = [(f"`paravt {name}`", command.title) for name, command in COMMANDS.items()]
    return _page(
        "Commands",
        "`paravt COMMAND --help` shows the options of a command. Commands that take a recipe "
        "accept every [recipe key](recipe-keys.md) as `--group.key=value`. Exit status: 0 success, "
        "1 something could not be scored or a file is wrong, 2 the command was wrong or could not "
        "run, 130 interrupted.",
        _table(("command", "what it does"), rows),
    )


def recipes() -> str:
    """Every packaged recipe in one line, grouped by command."""
    parts = []
    for command, rows in recipe_rows().items():
        parts += [f"## `paravt {command}`\n", _table(("recipe", "what it is"), rows), ""]
    return _page(
        "Recipes",
        "A recipe is a YAML file in `train/recipes/`; `base: NAME` starts from another one. The "
        "`_mini` recipes train ParaVT-Mini on two CPU cores. The `_8b` recipes are for Qwen3-VL-8B "
        "on eight GPUs and have not been run yet.",
        "\n".join(parts),
    )


def recipe_keys() -> str:
    """Every key of `paravt train`, `eval`, `sft` and `data reason`: type, default, sentence."""
    parts = ["## `paravt train` and `paravt eval`\n", *_groups(TrainConfig)]
    parts += ["## `paravt sft`\n", "Beside `env`, `agent` and the groups above:\n"]
    known = {field.name for field in dataclasses.fields(TrainConfig)}
    parts += list(_groups(SFTConfig, known))
    parts += ["## `paravt data reason`\n", *_groups(ReasonConfig)]
    return _page(
        "Recipe keys",
        "Every key of a recipe, with its default in the code; a recipe may set another one. On the "
        "command line: `--group.key=value`. `--print-config` shows the values that would run.",
        "\n".join(parts),
    )


def metrics() -> str:
    """The glossary of everything that training logs."""
    parts = []
    for title, section in SECTIONS.items():
        rows = [(f"`{name}`", said) for name, said in section.items()]
        parts += [f"## {title}\n", _table(("metric", "meaning"), rows), ""]
    return _page(
        "Metrics",
        "What a run writes to `metrics.jsonl`, to the console and to W&B, for every step. Words in "
        "capitals stand for a name: a reward term, a reason, a frame budget K. A metric that has "
        "no value in a step is absent.",
        "\n".join(parts),
    )


def statuses() -> str:
    """Statuses of calls, and reasons for which an episode ends."""
    calls = [(f"`{name}`", said) for name, said in of_members(CropStatus).items()]
    ends = [(f"`{name}`", said) for name, said in of_members(StopReason).items()]
    ends += [(f"`{name}`", said) for name, said in OUTCOMES.items()]
    return _page(
        "Statuses",
        "Words that the environment and the reports use for what happened.",
        "\n".join(
            [
                "## Of a call\n",
                '`info["crops"]` gives a status for each call of a turn. Only `ok` was executed.\n',
                _table(("status", "when"), calls),
                "\n## Of an episode\n",
                '`info["stop_reason"]` of the last step, and `stop/REASON` in the metrics.\n',
                _table(("reason", "when"), ends),
            ]
        ),
    )


def api() -> str:
    """Sections of modules for mkdocstrings."""
    parts = []
    for title, modules in API.items():
        parts.append(f"## {title}\n")
        parts += [f"::: {module}\n" for module in modules]
    return _page(
        "API", "Made from the docstrings. A module opens with what it does.", "\n".join(parts)
    )


PAGES = {
    "commands": commands,
    "recipes": recipes,
    "recipe-keys": recipe_keys,
    "metrics": metrics,
    "statuses": statuses,
    "api": api,
}


def _groups(kind: type, known: typing.Collection[str] = ()) -> Iterator[str]:
    """A heading and a table for each group of a recipe; plain keys come first."""
    hints = typing.get_type_hints(kind)
    said = of_fields(kind)
    plain = []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if field.name in known:
            continue
        inner = [one for one in typing.get_args(hint) if dataclasses.is_dataclass(one)]
        if inner:  # a list of groups, such as `stages`
            hint = inner[0]
        if dataclasses.is_dataclass(hint):
            yield f"### `{field.name}`\n"
            yield first_paragraph(hint.__doc__ or "") + "\n"
            yield (
                _table(
                    ("key", "meaning"), list(keys(hint, f"{field.name}[]" if inner else field.name))
                )
                + "\n"
            )
        else:
            plain.append(_row(field, hint, said, field.name))
    if plain:
        yield _table(("key", "meaning"), plain) + "\n"


def keys(kind: Any, prefix: str) -> Iterator[tuple[str, ...]]:
    """A row for each key of a group, and of the groups inside it."""
    hints, said = typing.get_type_hints(kind), of_fields(kind)
    for field in dataclasses.fields(kind):
        name = f"{prefix}.{field.name}"
        if dataclasses.is_dataclass(hints[field.name]):
            yield from keys(hints[field.name], name)
        else:
            yield _row(field, hints[field.name], said, name)


def _row(field: Any, hint: Any, said: dict[str, str], name: str) -> tuple[str, ...]:
    if field.default is not dataclasses.MISSING:
        default = shown(field.default)
    elif field.default_factory is not dataclasses.MISSING:
        default = shown(field.default_factory())
    else:
        default = "needed"
    return f"`{name}`", f"{said[field.name]}<br>*{_type(hint)}*, default `{default}`"


def shown(default: Any) -> str:
    """A default as a recipe writes it.

    >>> shown(None), shown((4, 8)), shown(""), shown(True)
    ('null', '[4, 8]', '""', 'true')
    """
    try:
        return json.dumps(default)
    except TypeError:
        return "see --print-config"


def _type(hint: Any) -> str:
    """A type as a recipe's reader needs it.

    >>> _type(typing.Literal["a", "b"]), _type(int | None), _type(dict[str, typing.Any])
    ('a, b', 'int, null', 'dict')
    """
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(map(str, typing.get_args(hint)))
    inner = [one for one in typing.get_args(hint) if one is not type(None)]
    if type(None) in typing.get_args(hint) or "|" in str(hint):
        nullable = [] if type(None) not in typing.get_args(hint) else ["null"]
        return ", ".join([*map(_type, inner), *nullable])
    origin = typing.get_origin(hint)
    if origin in (tuple, list) and inner:
        return f"list of {_type(inner[0])}"
    return getattr(origin or hint, "__name__", str(hint))


def _page(title: str, intro: str, body: str) -> str:
    return f"# {title}\n\n{intro}\n\n{body}\n"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


if __name__ == "__main__":
    print(PAGES[sys.argv[1]]())

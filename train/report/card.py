"""A policy as others take it: its files, a model card and its recipe, in one folder.

Reads a run or a checkpoint; `paravt push` writes the folder and may upload it. The card says what
is known and no more: numbers only where the run's evaluation is of this very policy. Tests:
`pytest tests/report/test_card.py`.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from paravt_env.common.files import write_whole
from train.common.errors import ConfigError
from train.evaluation.scores import EvalReport
from train.learner import checkpoint

CARD, RECIPE, EVALUATION = "README.md", "config.yaml", "after.json"
TAKEN = ("*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", CARD, RECIPE)
"""Files of a policy's folder that belong to it; nothing else is copied."""
LEFT = (EVALUATION, "checksums.json", "pass_rates.json", "agents.json", "trainer_state.json")


@dataclass(frozen=True)
class Policy:
    """A policy on disk.

    Attributes:
        folder: Of its weights.
        recipe: Settings that it was made with; None where they were not kept.
        evaluation: Report that measured it; None where there is none of this policy.
    """

    folder: Path
    recipe: Path | None
    evaluation: Path | None


def policy_in(folder: Path) -> Policy:
    """The policy of a checkpoint's folder, or of a run: its best by validation, else its last.

    Raises:
        ConfigError: There is none.
    """
    if (folder / "config.json").is_file():
        model, run = folder, folder
    else:
        last = checkpoint.latest(folder)
        if last is None:
            raise ConfigError(
                f"{folder} holds no policy: give the folder of a run that has saved a checkpoint, "
                "or one with a config.json"
            )
        best, run = checkpoint.best_of(last), folder
        model = last / checkpoint.MODEL if best is None else best[0]
    if not any(model.glob("*.safetensors")):
        raise ConfigError(f"{model} holds no weights (*.safetensors)")
    recipe, report = run / RECIPE, run / EVALUATION
    measured = report.is_file() and _measured(report) == model.resolve()
    return Policy(model, recipe if recipe.is_file() else None, report if measured else None)


def _measured(report: Path) -> Path | None:
    """The policy that an evaluation says it measured."""
    settings = report.with_suffix(".yaml")
    if not settings.is_file():
        return None
    said = yaml.safe_load(settings.read_text(encoding="utf-8")) or {}
    checkpoint_said = (said.get("agent") or {}).get("checkpoint")
    return Path(checkpoint_said).resolve() if checkpoint_said else None


def write_folder(policy: Policy, target: Path, name: str, licence: str = "") -> list[str]:
    """Copy what belongs to a policy, and write its card where it has none.

    Args:
        policy: What is copied.
        target: A folder that is not there yet, or is empty.
        name: Title of the card.
        licence: Of the weights, as the hub abbreviates it; "" says nothing.

    Returns:
        Paths of this machine that the recipe names, which the reader should know of.

    Raises:
        ConfigError: The folder holds something.
    """
    if target.exists() and any(target.iterdir()):
        raise ConfigError(f"{target} is not empty: give another --output, or move it away")
    target.mkdir(parents=True, exist_ok=True)
    for pattern in TAKEN:
        for path in sorted(policy.folder.glob(pattern)):
            if path.name not in LEFT:
                shutil.copy2(path, target / path.name)
    if policy.recipe is not None:
        shutil.copy2(policy.recipe, target / RECIPE)
    if not (target / CARD).is_file():
        write_whole(target / CARD, card(policy, name, licence))
    return sorted(set(local_paths(_settings(policy))))


def card(policy: Policy, name: str, licence: str = "") -> str:
    """The model card, in Markdown with the hub's header."""
    config = json.loads((policy.folder / "config.json").read_text(encoding="utf-8"))
    settings = _settings(policy)
    start = (settings.get("agent") or {}).get("checkpoint") or ""
    head: dict[str, Any] = {"license": licence} if licence else {}
    head |= {"library_name": "transformers", "pipeline_tag": "image-text-to-text"}
    head["tags"] = [config.get("model_type", "qwen3_vl"), "video-question-answering", "paravt"]
    if start and not Path(start).is_absolute() and "/" in start:
        head["base_model"] = start
    rows = {
        "architecture": ", ".join(config.get("architectures") or ["not said"]),
        "parameters": f"{parameters(policy.folder):,}",
        "made by": f"paravt {version('paravt')}",
        "settings": f"`{RECIPE}`" if policy.recipe else "not kept",
        "started from": Path(start).name if Path(start).is_absolute() else start or "not said",
        "licence": licence or "not said by who made this card",
    }
    table = "".join(f"| {key} | {value} |\n" for key, value in rows.items())
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# {name}\n\n"
        "A policy that answers questions about long videos and may ask for crops of them "
        f"(`crop_video`).\n\n| | |\n|---|---|\n{table}\n## Measured\n\n{measured(policy)}\n\n"
        "## Use\n\n    paravt eval config.yaml --agent.checkpoint=FOLDER\n\n"
        "Prompts are those of `agent.prompt_style` of the settings, frames are shown as "
        "`agent.frames_as` says.\n"
    )


def measured(policy: Policy) -> str:
    """What an evaluation of this policy found, in one sentence."""
    if policy.evaluation is None:
        return "No evaluation of this policy was in the folder that it was taken from."
    report = EvalReport.load(policy.evaluation)
    overall = report.summary()["overall"]
    share = {name: 100 * overall["accuracy"][name] for name in ("mean", "low", "high")}
    return (
        f"Accuracy {share['mean']:.1f} % [{share['low']:.1f}, {share['high']:.1f}] "
        f"(95 %, bootstrap over videos) on {len(report.rows)} rollouts of the split "
        f"`{report.settings.get('split', 'not said')}`, {overall['calls']:.2f} calls and "
        f"{overall['frames_seen']:.1f} frames a rollout, {100 * overall['compliance']:.1f} % in "
        f"the protocol; {overall['errors']} could not be scored and count as wrong."
    )


def parameters(folder: Path) -> int:
    """Numbers in the weights of a folder, by the headers of its safetensors files."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
        for key, tensor in header.items():
            if key != "__metadata__":
                count = 1
                for side in tensor["shape"]:
                    count *= side
                total += count
    return total


def local_paths(settings: Any, name: str = "") -> Iterator[str]:
    """Absolute paths in nested settings, as `name=path`.

    >>> list(local_paths({"env": {"tasks": "/data/a.jsonl", "split": "train"}}))
    ['env.tasks=/data/a.jsonl']
    """
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            yield from local_paths(value, f"{name}.{key}" if name else str(key))
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from local_paths(value, name)
    elif isinstance(settings, str) and settings.startswith("/"):
        yield f"{name}={settings}"


def _settings(policy: Policy) -> dict[str, Any]:
    if policy.recipe is None:
        return {}
    return yaml.safe_load(policy.recipe.read_text(encoding="utf-8")) or {}

"""Checkpoints: all that a run needs to resume as if it had not stopped, safe from crashes.

A checkpoint is a folder `checkpoints/step-000010` of a run:

    model/                 the policy in its standard format; `paravt eval` and others load it
    optimizer.safetensors  optimizer moments, generators' states, fp32 weights where there are some
    state.json             step, optimizer settings, schedule, generators and task order
    checksums.json         of all other files, checked before a run resumes

No file is a pickle. A checkpoint is written into a hidden neighbour, flushed to disk and renamed,
and renamed before it is deleted: a folder with that name is whole, or the disk has lost something.
The newest few are kept, and the best. It holds nothing that depends on the number of processes but
the generators of each.

Command: `pytest tests/loop/test_checkpoint.py`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from paravt_env.common.files import flush, flush_path
from train.common.errors import ConfigError
from train.learner import checksums

FOLDER = "checkpoints"
MODEL, TENSORS, STATE = "model", "optimizer.safetensors", "state.json"
_PREFIX = "step-"
_DRAFT, _RETIRED = ".partial", ".old"
"""What the names of hidden neighbours end with: not finished yet, not wanted any more."""


def save(
    run: str | Path,
    step: int,
    write_model: Callable[[Path], None],
    tensors: Mapping[str, torch.Tensor],
    state: Mapping[str, Any],
    keep: int = 2,
    spare: Collection[int] = (),
) -> Path:
    """Write the checkpoint of `step` (steps finished) and drop all but the newest `keep`.

    Args:
        run: Folder of the run.
        step: Steps finished; a checkpoint of the same step is replaced.
        write_model: Writes the policy into the folder that it is given.
        tensors: Named tensors.
        state: Data that JSON can hold.
        keep: Checkpoints that stay, at least 1.
        spare: Steps whose checkpoints stay as well.

    Returns:
        The finished folder.

    Raises:
        OSError: It could not be written (a full disk); earlier checkpoints are as they were, and
            the message says how to resume.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, not {keep}")
    parent = Path(run) / FOLDER
    parent.mkdir(parents=True, exist_ok=True)
    _clean(parent)
    final = folder_of(run, step)
    draft = parent / f".{final.name}{_DRAFT}"
    try:
        (draft / MODEL).mkdir(parents=True)
        write_model(draft / MODEL)
        save_file(
            {name: t.detach().cpu().contiguous() for name, t in tensors.items()}, draft / TENSORS
        )
        (draft / STATE).write_text(
            json.dumps(dict(state), indent=1, allow_nan=False), encoding="utf-8"
        )
        checksums.write(draft)
        flush(draft)
        replaced = _retire(final) if final.exists() else None
        try:
            draft.rename(final)
        except BaseException:
            if replaced is not None:
                replaced.rename(final)
            raise
        flush_path(parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise OSError(
            error.errno if isinstance(error, OSError) else None,
            f"cannot write the checkpoint {final}: {getattr(error, 'strerror', None) or error}. "
            "Earlier ones are as they were: free some space, then resume with --run.resume=true",
        ) from error
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    for old in _finished(Path(run))[:-keep]:
        if step_of(old) not in spare:
            _retire(old)
    _clean(parent)
    return final


def folder_of(run: str | Path, step: int) -> Path:
    """Where the checkpoint of a step is, or will be."""
    return Path(run) / FOLDER / f"{_PREFIX}{step:06d}"


def latest(run: str | Path) -> Path | None:
    """The newest finished checkpoint of a run, None where there is none."""
    found = _finished(Path(run))
    return found[-1] if found else None


def check_newest(run: str | Path) -> None:
    """Refuse to resume from a checkpoint that is broken, and say how to take the last whole one.

    Raises:
        ConfigError: A file of the newest one is missing, or is not what was written.
    """
    run = Path(run)
    broken: list[Path] = []
    said = ""
    for folder in reversed(_named(run)):
        wrong = problems(folder)
        if not wrong:
            break
        broken.append(folder)
        said = said or f"{folder} is broken: {'; '.join(wrong[:4])}"
    else:
        if broken:
            raise ConfigError(f"{said}; no other one is whole: start anew with another --run.name")
        return
    if broken:
        aside = run / "broken"
        listed = " ".join(map(str, broken))
        raise ConfigError(
            f"{said}. The last whole one is {folder}: to resume from it, `mkdir -p {aside} && mv "
            f"{listed} {aside}`, then the same command again"
        )


def problems(folder: Path) -> list[str]:
    """What is wrong with a checkpoint: parts that are missing, files that are not as written."""
    wrong = [f"{name} is missing" for name in _missing(folder)] or checksums.problems(folder)
    if not wrong:
        try:
            json.loads((folder / STATE).read_text(encoding="utf-8"))
        except ValueError:
            wrong = [f"{STATE} is not JSON"]
    return wrong


def best_of(folder: Path) -> tuple[Path, float] | None:
    """The best policy by validation that a checkpoint knows of, if it is kept, and its score."""
    best = json.loads((folder / STATE).read_text(encoding="utf-8")).get("best")
    if best is None:
        return None
    model = folder_of(folder.parents[1], best[0]) / MODEL
    return (model, best[1]) if model.is_dir() else None


def step_of(folder: Path) -> int:
    """Steps finished, by the name of a checkpoint."""
    return int(folder.name.removeprefix(_PREFIX))


def load(folder: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and state of a checkpoint; the policy is loaded from its `model` folder by name.

    The tensors are mapped from the file, whose place on the disk stays taken while one is held,
    even when newer checkpoints have replaced it.

    Raises:
        FileNotFoundError: The folder is not a finished checkpoint.
    """
    folder = Path(folder)
    missing = _missing(folder)
    if missing:
        raise FileNotFoundError(f"{folder} is not a checkpoint: {', '.join(missing)} is missing")
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    return load_file(folder / TENSORS), state


def _named(run: Path) -> list[Path]:
    """What is named as a checkpoint, by step."""
    found = (run / FOLDER).glob(f"{_PREFIX}*")
    return sorted((p for p in found if re.fullmatch(rf"{_PREFIX}\d+", p.name)), key=step_of)


def _finished(run: Path) -> list[Path]:
    return [folder for folder in _named(run) if not _missing(folder)]


def _missing(folder: Path) -> list[str]:
    """Parts of a checkpoint that a folder lacks."""
    return [name for name in (MODEL, TENSORS, STATE) if not (folder / name).exists()]


def _retire(folder: Path) -> Path:
    """Take the name from a checkpoint, in one stroke; what is left of it is for `_clean`."""
    return folder.rename(folder.with_name(f".{folder.name}{_RETIRED}"))


def _clean(parent: Path) -> None:
    """Delete retired checkpoints, and drafts of killed processes; what cannot be now is later."""
    for kind in (_DRAFT, _RETIRED):
        for folder in parent.glob(f".{_PREFIX}*{kind}"):
            shutil.rmtree(folder, ignore_errors=True)

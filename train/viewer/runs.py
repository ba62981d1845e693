"""The runs that are served: where they lie, their curves, lists and evaluations, read as they grow.

Everything that a page shows comes through here, by the name of a run that was found under the given
folders: no path is ever made of what a browser sends. Nothing is read before it is asked for, and
of what is kept in memory the oldest goes first. Tests: `pytest tests/viewer/test_runs.py`.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any

import yaml

from train.common.errors import ConfigError
from train.common.lock import FILE as LOCK
from train.common.metrics_file import FILE as METRICS
from train.common.rollout_file import (
    FOLDER,
    INDEX,
    RolloutFileError,
    index_lines,
    read_step,
    step_path,
)
from train.evaluation.row_file import ROWS, read_rows
from train.evaluation.scores import EvalReport
from train.report.curves import curves
from train.viewer.errors import CannotShow
from train.viewer.listing import Listed, Source, from_index, from_rows
from train.viewer.record import Shown
from train.viewer.tail import Tail

KEPT_RUNS, KEPT_REPORTS, KEPT_STEPS = 8, 4, 4
"""Runs whose steps and lists, evaluations whose rows, and steps whose rollouts are in memory."""
LARGEST_SETTINGS = 2**20
SETTINGS = "config.yaml"
MARKS = (METRICS, "after.json", SETTINGS)
"""A folder that holds one of these is a run's."""


@dataclass
class Run:
    """What is known of a run so far."""

    folder: Path
    steps: list[dict[str, Any]] = field(default_factory=list)
    kept: dict[int, list[Any] | tuple[Listed, ...]] = field(default_factory=dict)
    """Kept rollouts by step: as the index has them, or as lists show them once one is shown."""
    bytes_of: dict[int, int] = field(default_factory=dict)
    """Bytes on disk of the kept rollouts of each step."""

    charts: tuple[int, str] = (-1, "")
    """The curves as they were last drawn, and of how many steps."""

    def __post_init__(self) -> None:
        """Begin at the start of both files."""
        self._metrics = Tail(self.folder / METRICS)
        self._index = Tail(self.folder / FOLDER / INDEX)

    def read_steps(self) -> list[dict[str, Any]]:
        """The logged steps, with those that came since."""
        again, lines = self._metrics.read()
        if again:
            self.steps.clear()
            self.charts = (-1, "")
        for line in lines.splitlines():
            try:
                step = json.loads(line)
                step["step"] = int(step["step"])
                self.steps.append(step)
            except (ValueError, TypeError, KeyError, RecursionError):
                continue  # cut short by a crash
        return self.steps

    def read_index(self) -> None:
        """Read what came since of the kept rollouts."""
        again, lines = self._index.read()
        if again:
            self.kept.clear()
            self.bytes_of.clear()
        for step, size, rows in index_lines(lines):
            self.kept[step], self.bytes_of[step] = rows, size

    def listed(self, step: int) -> tuple[Listed, ...]:
        """The rollouts of a step; none where its line of the index is damaged."""
        rows = self.kept.get(step, ())
        if isinstance(rows, list):
            try:
                rows = from_index(rows)
            except (TypeError, ValueError):
                rows = ()
            self.kept[step] = rows
        return rows

    def draw(self) -> str:
        """The curves of all steps; drawn again only when there are more."""
        if self.charts[0] != len(self.read_steps()):
            self.charts = (len(self.steps), curves(self.steps))
        return self.charts[1]


class Runs:
    """The runs under some folders.

    Args:
        places: Folders of runs, or folders that hold folders of runs.

    Raises:
        ConfigError: One of them is not there, or none holds a run.
    """

    def __init__(self, places: Sequence[Path]) -> None:
        self.places = [Path(place) for place in places]
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._reports: OrderedDict[tuple[str, str, int, int], EvalReport] = OrderedDict()
        self._rollouts: OrderedDict[tuple[Path, int], list[dict[str, Any]]] = OrderedDict()
        self._lock = RLock()
        for place in self.places:
            if not place.is_dir():
                raise ConfigError(f"{place} is no folder: give a run's, or one that holds runs")
        if not self.folders():
            said = ", ".join(map(str, self.places))
            raise ConfigError(
                f"{said}: no run there ({', '.join(MARKS)}): run `paravt train` or `paravt demo`"
            )

    def folders(self) -> dict[str, Path]:
        """The runs that are there now, by name."""
        found: dict[str, Path] = {}
        for place in self.places:
            here = [place] if _is_run(place) else sorted(filter(_is_run, _children(place)))
            for folder in here:
                name = folder.resolve().name
                number = 2
                while name in found and found[name].resolve() != folder.resolve():
                    name, number = f"{folder.resolve().name} ({number})", number + 1
                found[name] = folder
        return found

    def folder(self, name: str) -> Path:
        """The folder of a run.

        Raises:
            CannotShow: There is none of that name.
        """
        known = self.folders()
        if name not in known:
            raise CannotShow(f"no run {name!r} here")
        return known[name]

    def steps(self, name: str) -> list[dict[str, Any]]:
        """The logged steps of a run so far."""
        with self._lock:
            return list(self._run(name).read_steps())

    def charts(self, name: str) -> str:
        """The curves of a run so far."""
        with self._lock:
            return self._run(name).draw()

    def kept(self, name: str) -> dict[int, int]:
        """How many rollouts each step of a run has kept so far."""
        with self._lock:
            run = self._run(name)
            run.read_index()
            return {step: len(rows) for step, rows in run.kept.items()}

    def listed(self, name: str, step: int) -> tuple[Listed, ...]:
        """The kept rollouts of a step; none where it kept none."""
        with self._lock:
            run = self._run(name)
            run.read_index()
            return run.listed(step)

    def kept_bytes(self, name: str) -> int:
        """Bytes on disk of all kept rollouts."""
        with self._lock:
            run = self._run(name)
            run.read_index()
            return sum(run.bytes_of.values())

    def going_on(self, name: str) -> bool:
        """Whether a process has the run's folder."""
        return (self.folder(name) / LOCK).exists()

    def evaluations(self, name: str) -> dict[str, Path]:
        """The evaluations of a run by name: `before`, `after`, `human/after`, `after.rows`.

        The last one goes on, or was not merged: its rows so far.
        """
        folder = self.folder(name)
        paths = [folder / "before.json", *sorted(folder.glob("after.json"))]
        paths += sorted([*folder.glob("*/after.json"), *folder.glob("*/*/after.json")])
        for pattern in ("", "*/", "*/*/"):
            rows = sorted(folder.glob(f"{pattern}*{ROWS}*.jsonl"))
            paths += [path for path in rows if not _whole(path).is_file()]
        return {
            path.relative_to(folder).with_suffix("").as_posix(): path
            for path in paths
            if path.is_file()
        }

    def report(self, name: str, evaluation: str) -> EvalReport:
        """An evaluation of a run.

        Raises:
            CannotShow: There is none of that name, or its file is damaged.
        """
        path = self.evaluations(name).get(evaluation)
        if path is None:
            raise CannotShow(f"{name} holds no evaluation {evaluation!r}")
        stat = path.stat()
        key = (name, evaluation, stat.st_mtime_ns, stat.st_size)
        with self._lock:
            if key not in self._reports:
                try:
                    self._reports[key] = _read_report(path)
                except ConfigError as error:
                    raise CannotShow(str(error), 422) from error
                while len(self._reports) > KEPT_REPORTS:
                    self._reports.popitem(last=False)
            self._reports.move_to_end(key)
            return self._reports[key]

    def rows(self, name: str, evaluation: str) -> tuple[Listed, ...]:
        """The rows of an evaluation as a list shows them."""
        turns = self.setting(name, "env", "max_turns", default=3)
        return from_rows(self.report(name, evaluation).rows, int(turns))

    def shown(self, name: str, source: Source, place: int) -> Shown:
        """One rollout, by its place in a step or an evaluation.

        Raises:
            CannotShow: There is none, or its file is damaged.
        """
        try:
            if source.evaluation:
                rows = self.report(name, source.evaluation).rows
                if 0 <= place < len(rows):
                    return Shown.from_row(rows[place])
            elif source.step is not None and source.step in self.kept(name):
                records = self._step(self.folder(name), source.step)
                if 0 <= place < len(records):
                    return Shown.from_file(records[place])
        except RolloutFileError as error:
            raise CannotShow(str(error), 422) from error
        raise CannotShow(f"{name} holds no rollout {place + 1} of {source.title}")

    def _step(self, folder: Path, step: int) -> list[dict[str, Any]]:
        """The rollouts of a step; of what was read last, a few steps are kept."""
        path = step_path(folder, step)
        key = (path, path.stat().st_mtime_ns if path.is_file() else 0)
        with self._lock:
            if key not in self._rollouts:
                self._rollouts[key] = read_step(folder, step)
                while len(self._rollouts) > KEPT_STEPS:
                    self._rollouts.popitem(last=False)
            self._rollouts.move_to_end(key)
            return self._rollouts[key]

    def settings(self, name: str) -> dict[str, str]:
        """The files of settings of a run, as text."""
        folder = self.folder(name)
        paths = [folder / SETTINGS, *sorted(folder.glob("config-until-*.yaml"))]
        paths += [folder / "before.yaml", folder / "after.yaml"]
        return {path.name: text for path, text in _texts(paths)}

    def setting(self, name: str, *keys: str, default: Any) -> Any:
        """One setting of a run, by the names of its groups and its own."""
        texts = self.settings(name)
        for file in (SETTINGS, "after.yaml"):
            try:
                value: Any = yaml.safe_load(texts.get(file, "")) or {}
            except yaml.YAMLError:
                continue
            for key in keys:
                value = value.get(key) if isinstance(value, Mapping) else None
            if isinstance(value, type(default)):
                return value
        return default

    def _run(self, name: str) -> Run:
        folder = self.folder(name)
        run = self._runs.get(name)
        if run is None or run.folder != folder:
            run = self._runs[name] = Run(folder)
        self._runs.move_to_end(name)
        while len(self._runs) > KEPT_RUNS:
            self._runs.popitem(last=False)
        return run


def _whole(rows: Path) -> Path:
    """The report that the rows of an evaluation become when it has ended."""
    return rows.with_name(f"{rows.name.partition(ROWS)[0]}.json")


def _read_report(path: Path) -> EvalReport:
    """An evaluation that has ended, or the rows of one so far.

    Raises:
        ConfigError: The file holds something else, or no row yet.
    """
    if path.suffix != ".jsonl":
        return EvalReport.load(path)
    header, rows, seconds = read_rows(path)
    if not rows:
        raise ConfigError(f"{path.name} holds no row yet")
    return EvalReport(tuple(rows), header["settings"], seconds)


def _is_run(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in MARKS)


def _children(place: Path) -> list[Path]:
    return [path for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _texts(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    for path in paths:
        if path.is_file() and path.stat().st_size <= LARGEST_SETTINGS:
            yield path, path.read_text(encoding="utf-8", errors="replace")

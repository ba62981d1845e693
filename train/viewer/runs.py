"""The runs that are served: their folders, curves, lists and evaluations, read as they grow.

Everything that a page shows comes through here, by the name of a run that was found under the given
folders: no path is ever made of what a browser sends. Nothing is read before it is asked for, and
of what is kept in memory the oldest goes first. Tests: `pytest tests/viewer/test_runs.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import RLock
from typing import Any

import yaml

from train.common.errors import ConfigError
from train.common.lock import FILE as LOCK
from train.common.metrics_file import FILE as METRICS
from train.common.rollout_file import IndexLine, RolloutFileError, read_step, step_path
from train.evaluation.row_file import ROWS, read_rows
from train.evaluation.scores import EvalReport
from train.evaluation.token_files import read_tokens
from train.viewer.errors import CannotShow
from train.viewer.listing import Listed, Source, from_rows
from train.viewer.record import Shown
from train.viewer.run_data import Run, recent_steps

KEPT_RUNS, KEPT_REPORTS, KEPT_STEPS = 8, 4, 4
"""Runs whose steps and lists, evaluations whose rows, and steps whose rollouts are in memory."""
LARGEST_SETTINGS = 2**20
SETTINGS = "config.yaml"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, ten times as fast, where it is there; both make plain values alone."""
MARKS = (METRICS, "after.json", SETTINGS)
"""A folder that holds one of these is a run's."""


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
        self._settings: dict[str, tuple[object, list[Any]]] = {}
        self._found: dict[str, Path] = {}
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
        self._found = found
        return dict(found)

    def folder(self, name: str) -> Path:
        """The folder of a run.

        Raises:
            CannotShow: There is none of that name.
        """
        if name not in self._found or not _is_run(self._found[name]):
            self.folders()
        if name not in self._found:
            raise CannotShow(f"no run {name!r} here")
        return self._found[name]

    def steps(self, name: str) -> list[dict[str, Any]]:
        """The logged steps of a run so far."""
        with self._lock:
            return list(self._run(name).read_steps())

    def charts(self, name: str) -> str:
        """The curves of a run so far."""
        with self._lock:
            return self._run(name).draw()

    def recent(self, name: str, count: int) -> list[dict[str, Any]]:
        """The last logged steps of a run; of one that is not in memory, only the file's end."""
        with self._lock:
            if name in self._runs:
                return self._run(name).read_steps()[-count:]
        return recent_steps(self.folder(name), count)

    def kept(self, name: str) -> dict[int, IndexLine]:
        """What the index says of each step that kept rollouts, so far."""
        with self._lock:
            run = self._run(name)
            run.read_index()
            return dict(run.kept)

    def listed(self, name: str, steps: Sequence[int]) -> list[tuple[Source, Listed]]:
        """The kept rollouts of some steps, in their order; none of a step that kept none."""
        with self._lock:
            run = self._run(name)
            run.read_index()
            return [(Source(step), one) for step in steps for one in run.listed(step)]

    def going_on(self, name: str) -> bool:
        """Whether a process has the run's folder."""
        return (self.folder(name) / LOCK).exists()

    def evaluations(self, name: str) -> dict[str, Path]:
        """The evaluations of a run by name: `before`, `after`, `human/after`, `after.rows`.

        The last one is in progress, or not merged: its rows so far.
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
                    report = _whole(self.evaluations(name)[source.evaluation])
                    return Shown.from_row(rows[place], read_tokens(report, rows[place]))
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
        for value in self._parsed(name):
            for key in keys:
                value = value.get(key) if isinstance(value, Mapping) else None
            if isinstance(value, type(default)):
                return value
        return default

    def _parsed(self, name: str) -> list[Any]:
        """The settings of training, then of the evaluation; parsed when the files have changed."""
        folder = self.folder(name)
        paths = [folder / SETTINGS, folder / "after.yaml"]
        stats = [path.stat() if path.is_file() else None for path in paths]
        state = folder, [stat and (stat.st_mtime_ns, stat.st_size) for stat in stats]
        with self._lock:
            known = self._settings.get(name)
            if known is None or known[0] != state:
                known = state, [_as_yaml(text) for _, text in _texts(paths)]
                self._settings[name] = known
            return known[1]

    def _run(self, name: str) -> Run:
        folder = self.folder(name)
        run = self._runs.get(name)
        if run is None or run.folder != folder:
            run = self._runs[name] = Run(folder)
        self._runs.move_to_end(name)
        while len(self._runs) > KEPT_RUNS:
            self._runs.popitem(last=False)
        return run


def _whole(path: Path) -> Path:
    """The report that the rows of an evaluation become when it has ended; a report is its own."""
    return path.with_name(f"{path.name.partition(ROWS)[0].removesuffix('.json')}.json")


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


def _as_yaml(text: str) -> Any:
    try:
        return yaml.load(text, Loader=LOADER)
    except yaml.YAMLError:
        return None


def _is_run(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in MARKS)


def _children(place: Path) -> list[Path]:
    return [path for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _texts(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    for path in paths:
        if path.is_file() and path.stat().st_size <= LARGEST_SETTINGS:
            yield path, path.read_text(encoding="utf-8", errors="replace")

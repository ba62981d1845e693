"""`paravt data`: make the sets that are made here, list and check tasks, measure looking.

Start of the journey, seen from the command line; needs the core installation alone (`reason`, whose
settings are a recipe, is `train/commands/reason.py` and needs the train extra). Try
`paravt data stats`: it decodes nothing. `paravt data validate FILE` ends with status 1 where
something is wrong or missing.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paravt_env.task import TaskSet
from paravt_env.tasksets import load_tasks
from paravt_env.tasksets.base import TaskList, missing_videos
from paravt_env.tasksets.made.atari.stats import format_stats
from paravt_env.tasksets.made.base import SPLITS
from paravt_env.tasksets.made.synthetic import DEFAULT_VIDEOS
from paravt_env.tasksets.made.synthetic.brief import BriefSettings, BriefTasks
from paravt_env.tasksets.made.synthetic.generate import plan_tasks
from paravt_env.tasksets.made.synthetic.stats import format_table, stats
from paravt_env.tasksets.made.synthetic.world import WorldSettings
from paravt_env.tasksets.made.zoom import DEFAULT_PICTURES
from paravt_env.tasksets.made.zoom.stats import measured as measured_zoom
from paravt_env.tasksets.made.zoom.world import ZoomSettings
from paravt_env.tasksets.published.materialize import materialize
from train.commands import reason
from train.commands.options import whole
from train.commands.validation import absent_videos, broken_subtitles, broken_videos
from train.common.console import printable
from train.common.errors import ConfigError

SYNTHETIC, BRIEF, ATARI, ZOOM = "synthetic", "synthetic_brief", "atari", "zoom"
MADE_HERE = (SYNTHETIC, BRIEF, ATARI, ZOOM)


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Do what was asked for and print it; the exit status is 1 where something is wrong."""
    if words[:1] == ["reason"]:
        return reason.run(parser, words[1:])
    actions = ("make", "list", "stats", "validate", "materialize", "reason")
    parser.add_argument("action", choices=actions, help="reason --help says more of the last one")
    parser.add_argument(
        "sources",
        nargs="*",
        help="make, stats: synthetic, synthetic_brief, atari or zoom; list, validate: task sets or "
        "JSONL manifests; materialize: ParaVT-Parquet files or folders of them",
    )
    parser.add_argument("--tasks", default="synthetic", help="task set or JSONL manifest")
    parser.add_argument("--root", help="folder of the videos")
    parser.add_argument("--output", help="materialize: folder of the new files")
    parser.add_argument(
        "--open",
        action="store_true",
        help="validate: read each video, too (ends, an overview, a crop), and its subtitles",
    )
    parser.add_argument(
        "--thorough", action="store_true", help="validate: --open, and 20 random windows of each"
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another argument of the task set, such as annotations=FILE or hub=true",
    )
    parser.add_argument("--split", help="default: all of them in make, else test")
    parser.add_argument("--videos", type=whole(1), help="videos of a split")
    parser.add_argument("--limit", type=whole(0), default=20, help="tasks that list prints")
    parser.add_argument("--frame-budgets", type=whole(0), nargs="+", default=[4, 8, 16, 32, 64])
    args = parser.parse_args(words)
    sources = args.sources or [args.tasks]
    if args.action == "stats":
        print(measured(sources[0], args))
    elif args.action == "materialize":
        return _materialize(args)
    elif args.action == "validate":
        return max(_validate(source, args) for source in sources)
    elif args.action == "list":
        for source in sources:
            tasks = load_tasks(source, **_options(source, args))
            print(described(args.split or _split(source) or "all", tasks))
            print("\n".join(listed(tasks, args.limit)))
    else:
        _make(sources, args)
    return 0


def _make(sources: Sequence[str], args: argparse.Namespace) -> None:
    """Make the sets that are made here; all are known before the first is made."""
    for source in sources:
        if source not in MADE_HERE:
            raise ConfigError(f"make knows {', '.join(MADE_HERE)} only, not {source}")
    for source in sources:
        for split in (args.split,) if args.split else SPLITS:
            options = _options(source, args) | {"split": split}
            print(described(split, load_tasks(source, **options)))


def measured(source: str, args: argparse.Namespace) -> str:
    """The table of `paravt data stats`: what an overview of K frames is worth.

    In `synthetic` and its variant, whose plans say what a frame shows, accuracy of ideal readers;
    in `atari`, which is recorded first where it is not there, how much of the evidence an overview
    shows.

    Raises:
        ConfigError: Another task set: where its evidence lies is not known of every question.
    """
    if source not in MADE_HERE:
        raise ConfigError(f"stats knows {', '.join(MADE_HERE)} only, not {source}")
    split = args.split or "test"
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    if source == ATARI:
        recorded = load_tasks(source, **_options(source, args))
        rows = [recorded[index] for index in range(len(recorded))]
        return format_stats(rows, split, args.frame_budgets)
    options = _options(source, args)
    if source == ZOOM:
        count = options.pop("videos", DEFAULT_PICTURES[split])
        dials = {name: value for name, value in options.items() if name not in ("split", "root")}
        return measured_zoom(ZoomSettings.from_dials(dials), split, count)
    world, videos = (
        (WorldSettings, DEFAULT_VIDEOS)
        if source == SYNTHETIC
        else (BriefSettings, BriefTasks.default_videos)
    )
    count = options.pop("videos", videos[split])
    dials = {name: value for name, value in options.items() if name not in ("split", "root")}
    planned = plan_tasks(world.from_dials(dials), split, count)
    title = f"{len(planned)} questions, {count} videos, split {split}; accuracy in %"
    return f"{title}\n{format_table(stats(planned, args.frame_budgets))}"


def described(split: str, tasks: TaskSet) -> str:
    """A task set in a few lines: tasks, videos, families; what is missing or odd, if anything."""
    rows = [tasks[index] for index in range(len(tasks))]
    families = Counter(task.family or task.kind for task in rows)
    shown = ", ".join(f"{name} {count}" for name, count in sorted(families.items()))
    videos = {task.medium for task in rows}
    lines = [f"{split}: {len(rows)} tasks on {len(videos)} videos ({shown})"]
    if missing := missing_videos(tasks):
        lines.append(
            f"  missing: {len(missing)} of {len(videos)} videos ({sum(missing.values())} tasks)"
        )
    if isinstance(tasks, TaskList):
        if subtitles := tasks.missing_subtitles:
            lines.append(f"  missing: {len(subtitles)} subtitle files")
        lines += [f"  note: {note}" for note in tasks.notes]
    return printable("\n".join(lines))


def listed(tasks: TaskSet, limit: int) -> list[str]:
    """The first tasks, one line each: id, kind, category, video, question; missing videos too."""
    rows = [tasks[index] for index in range(min(limit, len(tasks)))]
    lines = [
        f"{task.id}  {task.kind}  {task.category or '-'}  {task.medium}  {task.question}"
        for task in rows
    ]
    lines += [f"missing: {video}" for video in list(missing_videos(tasks))[:limit]]
    return [printable(line.replace("\n", " ")) for line in lines]


def _split(source: str) -> str | None:
    """The split that a source is asked for by default; None is its own, or every line."""
    return "test" if source in MADE_HERE else None


def _options(source: str, args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of a task set from the command line.

    Raises:
        ConfigError: An `--option` that is not KEY=VALUE, or that has a flag of its own.
    """
    options: dict[str, Any] = {"split": args.split or _split(source)}
    if args.videos is not None:
        options["videos"] = args.videos
    if args.root:
        options["root"] = args.root
    for option in args.option:
        name, sign, value = option.partition("=")
        if not sign:
            raise ConfigError(f"--option {option!r}: KEY=VALUE expected")
        if name in ("split", "root") or (name == "videos" and source in MADE_HERE):
            raise ConfigError(f"--option {option!r}: say --{name} {value}")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def _validate(source: str, args: argparse.Namespace) -> int:
    """Print everything that is wrong with a set, a line each, and its counts; 1 if anything is.

    Raises:
        TaskError: The set cannot be looked at, as its folder or file is not there.
    """
    path = Path(source)
    name = "jsonl" if path.suffix == ".jsonl" else source
    options = _options(source, args) | ({"path": source} if name == "jsonl" else {})
    if source in MADE_HERE:
        raise ConfigError(f"{source} tasks are made, not read: there is nothing to validate")
    tasks = load_tasks(name, **options, strict=False)
    if not isinstance(tasks, TaskList):
        raise ConfigError(f"{source} keeps no record of its problems: it is no TaskList")
    problems = [*tasks.problems, *absent_videos(tasks)]
    if args.open or args.thorough:
        problems += [*broken_videos(tasks, thorough=args.thorough), *broken_subtitles(tasks)]
    for problem in problems:
        print(printable(str(problem)))
    print(described(args.split or source, tasks))
    print(f"  {len(problems)} problems")
    return 1 if problems else 0


def _materialize(args: argparse.Namespace) -> int:
    """Write ParaVT-Parquet files with absolute paths; 1 where a path is missing or was refused.

    Raises:
        ConfigError: No sources, `--root` or `--output`.
    """
    if not args.sources or not args.root or not args.output:
        raise ConfigError("materialize needs FILES --root FOLDER --output FOLDER")
    done = materialize([Path(source) for source in args.sources], args.root, args.output)
    for problem in done.problems:
        print(printable(str(problem)))
    for path in list(done.missing)[: args.limit]:
        print(printable(f"missing: {path}"))
    buckets = ", ".join(f"{name} {count}" for name, count in sorted(done.buckets.items()))
    missing = f"{len(done.missing)} files missing" + (f" ({buckets})" if buckets else "")
    print(
        f"{len(done.files)} files, {done.rows} rows written to {args.output}; {missing}, "
        f"{len(done.problems)} paths refused"
    )
    return 1 if done.missing or done.problems else 0

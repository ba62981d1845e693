"""How many wrong questions a correct captioner leads to, and which checks find them.

The data engine runs over made worlds, whose contents are known: a captioner that recognises each
film by its pixels says exactly what the frames of a clip show (`tests/support/known_worlds.py`), or
names a share of the things wrongly; writer and solvers know the captions alone. So a wrong answer
comes from clips and frames, or from the mistakes that were asked for. Run it with `python
benchmarks/reason.py` (`--worlds synthetic` where `ale-py` is not installed, `--no-shots` where
PySceneDetect is not); the committed output is `benchmarks/results/reason.txt`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from agents.chat.client import ChatConfig
from paravt_env.tasksets import load_tasks
from paravt_env.tasksets.made.synthetic.world import SYMBOLS
from train.config.reason import CheckConfig, ClipConfig, QuestionConfig, ReasonConfig
from train.datagen.engine import Engine
from train.datagen.judging import Verdict
from train.datagen.manifest import write_set
from train.evaluation.bootstrap import interval, video_clusters

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from support.chat_servers import serving
from support.known_worlds import Film, Models, atari, is_right, synthetic

from paravt_env.common.progress import counted


class Setting(NamedTuple):
    """One run of the engine: clips, frames of each, what solvers see, the captioner's mistakes."""

    clips: str
    seconds: float
    frames: int
    see: str = "captions"
    mistakes: float = 0.0


SYNTHETIC = (
    Setting("windows", 10, 8),
    Setting("windows", 30, 8),
    Setting("windows", 60, 8),
    Setting("windows", 60, 4),
    Setting("windows", 60, 2),
    Setting("shots", 60, 8),
    Setting("windows", 10, 8, mistakes=0.1),
    Setting("windows", 10, 8, "frames", 0.1),
    Setting("windows", 10, 8, mistakes=0.3),
    Setting("windows", 10, 8, "frames", 0.3),
)
ATARI = (Setting("windows", 10, 8), Setting("windows", 30, 8), Setting("windows", 60, 4),
         Setting("shots", 60, 8))  # fmt: skip
HEADS = (
    f"{'clips':<9}{'s':>4}{'frames':>8}{'solvers see':>13}{'mistakes':>10}{'requests':>10}"
    f"{'written':>9}{'wrong of them, %':>20}{'kept':>7}{'wrong of them, %':>20}"
)


def measured(folder: Path, films: dict[str, Film], setting: Setting, per: int, output: Path) -> str:
    """One line: rows that the writer made and rows that were kept, and how many are wrong."""
    things = SYMBOLS if folder.parent.parent.name == "synthetic" else things_of(films)
    models = Models(list(films.values()), things, setting.mistakes)
    with serving(models) as endpoint:
        server = ChatConfig(endpoint.url, "known", concurrency=2)
        synthetic_world = things is SYMBOLS
        config = ReasonConfig(
            source=str(folder),
            output=str(output),
            captioner=server,
            writer=server,
            clips=ClipConfig(setting.clips, setting.seconds, frames=setting.frames, height=128),
            questions=QuestionConfig(
                ("temporal", "goal", "spatial", "plot")
                if synthetic_world
                else ("temporal", "plot"),
                per,
            ),
            checks=CheckConfig(solvers_see=setting.see),
        )
        engine = Engine(config, progress=False)
        made = engine.run()
        summary = write_set(made, engine.planned, config)
    models.close()
    judged = list(made.verdicts.values())
    kept = [verdict for verdict in judged if verdict.error is None]
    cells = f"{setting.clips:<9}{setting.seconds:>4g}{setting.frames:>8}{setting.see:>13}"
    cells += f"{100 * setting.mistakes:>8.0f} %{summary['total']['requests']:>10}"
    return cells + "".join(f"{len(some):>{n}}{wrong(some, films):>20}" for n, some in
                           ((9, judged), (7, kept)))  # fmt: skip


def things_of(films: dict[str, Film]) -> list[str]:
    """All things of some films."""
    return sorted({fact.thing for film in films.values() for fact in film.facts if fact.thing})


def wrong(verdicts: Sequence[Verdict], films: dict[str, Film]) -> str:
    """Share of rows that are not true of their film, with its interval over films."""
    if not verdicts:
        return "-"
    rows = [verdict.row for verdict in verdicts]
    values = [float(not is_right(films[r.film.path], r.question, r.answer, r.wrong)) for r in rows]
    clusters = video_clusters([row.id for row in rows], [row.film.path for row in rows])
    found = interval(values, clusters)
    return f"{100 * found.mean:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def main() -> None:
    """Measure every setting and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", nargs="+", default=["synthetic", "atari"])
    parser.add_argument("--videos", type=int, default=8, help="of the synthetic world")
    parser.add_argument("--games", type=int, default=4, help="recordings")
    parser.add_argument("--per-category", type=int, default=6)
    parser.add_argument("--no-shots", action="store_true")
    args = parser.parse_args()
    for world in args.worlds:
        started = time.monotonic()
        made = world == "synthetic"
        dials = {"videos": args.videos} if made else {
            "videos": args.games, "minutes": (10.0, 12.0), "long_every": 0}  # fmt: skip
        tasks = load_tasks(world, split="test", **dials)
        known = {
            tasks[i].video: (synthetic if made else atari)(tasks[i]) for i in range(len(tasks))
        }
        seconds = [film.facts[-1].end for film in known.values()]
        print(f"{world}: {len(known)} videos, {sum(seconds) / 60:.0f} minutes\n{HEADS}", flush=True)
        for setting in counted(world, SYNTHETIC if made else ATARI):
            if setting.clips == "shots" and args.no_shots:
                continue
            with tempfile.TemporaryDirectory() as output:
                folder = Path(next(iter(known))).parent
                print(measured(folder, known, setting, args.per_category, Path(output)), flush=True)
        print(f"{time.monotonic() - started:.0f} s\n", flush=True)


if __name__ == "__main__":
    main()

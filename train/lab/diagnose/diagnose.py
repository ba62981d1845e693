"""`paravt diagnose RUN`: the TA-MDP diagnostics of a finished or stopped run, in one report.

After the journey: reads what the run logged (`train/lab/diagnose/records.py`), has its last
checkpoint play a few groups (`train/lab/diagnose/probe.py`), and lays the PAC-Bayes figure beside
the transfer that evaluations measured. Prints the report and writes it as `diagnostics.json`. Which
of the numbers prove anything says `docs/diagnostics.md`. Tests: `pytest
tests/lab/test_diagnostics.py`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from paravt_env.common.files import write_whole
from train.common.errors import ConfigError
from train.common.metrics_file import read_metrics
from train.lab.diagnose.probe import play_probe
from train.lab.diagnose.records import read_training, read_transfers
from train.lab.diagnose.report import (
    as_plain,
    describe_bound,
    describe_probe,
    describe_training,
    describe_transfers,
)
from train.lab.diagnose.settings import ProbeSettings

FILE = "diagnostics.json"


def run(args: argparse.Namespace) -> str:
    """Diagnose a run and write `diagnostics.json`; returns the report.

    Raises:
        ConfigError: The folder is no run, or an option is out of range.
    """
    folder = Path(args.folder)
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder} is no run: it holds no config.yaml; see `paravt train`")
    if args.groups < 0 or args.groups == 1:
        raise ConfigError("--groups must be 0 (no probe) or at least 2 (two halves)")
    if not args.noise > 0 or not 0 < args.delta < 1:
        raise ConfigError("--noise must be positive and --delta between 0 and 1")
    transfers = read_transfers(args.before, args.after)
    training = read_training(read_metrics(folder))
    settings = ProbeSettings(args.groups, args.seed, args.noise, args.delta)
    probe = play_probe(folder, settings) if args.groups else None
    content = {
        "probe": as_plain(probe) if probe else None,
        "training": as_plain(training),
        "transfer": [as_plain(one) for one in transfers],
    }
    text = json.dumps(content, indent=1, allow_nan=False)
    write_whole(folder / FILE, text)
    parts = [
        *(describe_probe(probe) if probe else ["no probe (--groups 0): the log alone"]),
        *describe_training(training),
        *(describe_bound(probe, training) if probe else []),
        *describe_transfers(transfers),
    ]
    return "\n".join([*parts, "", f"{folder / FILE}"])

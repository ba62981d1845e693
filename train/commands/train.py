"""`paravt train`: reads the recipe, hands it to `train.loop.launch`, says what to do next.

Tests: `pytest tests/commands tests/loop`.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from train.commands.options import recipe_settings
from train.config.run import TrainConfig


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Read the settings, then train."""
    config = recipe_settings(parser, TrainConfig, words, "paragrpo_mini")
    if config is not None:
        # torch: only once the settings are known to be good
        from train.lab.diagnose.observer import observers_of
        from train.loop.launch import train

        model = train(config, observers_of(config))
        if os.environ.get("RANK", "0") == "0":  # of several processes one says it
            from train.learner.checkpoint import best_of

            print(finished(config.run.path, model, best_of(model.parent)), flush=True)
    return 0


def finished(run: Path, model: Path, best: tuple[Path, float] | None) -> str:
    """Where the policy of a run is, and what to type next.

    Args:
        run: Folder of the run.
        model: Folder of the trained policy.
        best: Folder of the best policy by validation and its accuracy there, if it was measured.
    """
    lines = [f"trained: {model}"]
    if best is not None:
        lines.append(f"best by validation ({best[1]:.3f}): {best[0]}")
    settings, policy = (shlex.quote(str(path)) for path in (run / "config.yaml", model))
    return "\n".join(
        [
            *lines,
            "next:",
            f"  paravt eval {settings} --agent.checkpoint={policy}   # the test split",
            f"  paravt view {shlex.quote(str(run))}   # curves and rollouts in the browser",
            f"  paravt report {shlex.quote(str(run))}   # the same as one file",
        ]
    )

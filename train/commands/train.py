"""`paravt train`: reads the recipe and hands it to `train.loop.launch`.

Tests: `pytest tests/commands tests/loop`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from train.commands.options import recipe_settings
from train.config.run import TrainConfig


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Read the settings, then train."""
    config = recipe_settings(parser, TrainConfig, words, "paragrpo_mini")
    if config is not None:
        # torch: only once the settings are known to be good
        from train.lab.diagnose.observer import observers_of
        from train.loop.launch import train

        train(config, observers_of(config))
    return 0

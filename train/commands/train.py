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
        from train.loop.launch import train  # torch: only once the settings are known to be good

        train(config)
    return 0

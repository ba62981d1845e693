"""`paravt sft`: the cold start.

Reads the recipe and hands it to `train.sft.sft`. Tests: `pytest tests/commands tests/sft`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from train.commands.options import recipe_settings
from train.config.sft import SFTConfig


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Read the settings, then teach."""
    config = recipe_settings(parser, SFTConfig, words, "sft_mini")
    if config is not None:
        from train.sft import sft  # torch: only once the settings are known to be good

        sft.run(config)
    return 0

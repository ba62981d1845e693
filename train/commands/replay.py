"""`paravt replay`: recorded episodes again, as text and as a page (core installation).

After the journey, for a folder that `paravt_env.show.recording` wrote; `train.report.replay` draws
them. Tests: `pytest tests/show/test_recording.py`.
"""

from __future__ import annotations

import argparse
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from paravt_env.show.recording import RecordingError, load_episodes
from train.commands.options import whole
from train.common.console import printable
from train.common.errors import ConfigError
from train.report.replay import as_text, write_page


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Print the chosen episodes, write their page, open it if asked.

    Raises:
        ConfigError: The folder holds no recording, or no such episode; no browser can be started.
    """
    parser.add_argument("folder", help="what RecordEpisodes wrote")
    parser.add_argument("--episode", type=whole(0), help="number of one episode; default: all")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    args = parser.parse_args(words)
    folder = Path(args.folder)
    try:
        episodes = load_episodes(folder)
    except RecordingError as error:
        raise ConfigError(str(error)) from error
    if args.episode is not None:
        last = len(episodes) - 1
        episodes = [episode for episode in episodes if episode["episode"] == args.episode]
        if not episodes:
            raise ConfigError(f"{folder} holds episodes 0 to {last}: {args.episode}?")
    for episode in episodes:
        print(printable(as_text(episode)))
    path = write_page(folder, episodes)
    if args.open and not webbrowser.open(path.resolve().as_uri()):
        raise ConfigError(f"no browser can be started here: open {path} yourself")
    print(path)
    return 0

"""`paravt view`: a local web page of runs, their rollouts, and of episodes that you play.

Above `train.viewer`, whose server needs the extra `view`. Tests: `pytest tests/viewer`, and in a
browser `make test-browser`.
"""

from __future__ import annotations

import argparse
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from train.commands.options import whole
from train.commands.serve import loopback
from train.common.errors import ConfigError
from train.viewer.runs import Runs


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Serve until interrupted.

    Raises:
        ConfigError: No run there, an address that others can reach, or the extra is missing.
    """
    parser.add_argument("folders", nargs="*", default=["runs"], help="runs, or folders of runs")
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address: %(default)s")
    parser.add_argument("--port", type=whole(0), default=8765)
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    args = parser.parse_args(words)
    if not loopback(args.host):
        raise ConfigError(
            f"--host {args.host} can be reached from outside, and there is no password: "
            f"serve on 127.0.0.1 and forward the port (ssh -L {args.port}:127.0.0.1:{args.port})"
        )
    try:
        from train.viewer.server import Viewer, serve  # an extra of its own
    except ModuleNotFoundError as error:
        raise ConfigError(f"view needs {error.name}: pip install 'paravt[view]'") from error
    viewer = Viewer(Runs([Path(folder) for folder in args.folders]))
    address = f"http://{args.host}:{args.port}"
    print(f"{address}   (Ctrl-C ends it)", flush=True)
    if args.open and not webbrowser.open(address):
        raise ConfigError(f"no browser can be started here: open {address} yourself")
    serve(viewer, args.host, args.port)
    return 0

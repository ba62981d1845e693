"""`paravt serve --openenv`: the environment of a recipe behind a port.

Other people's trainers connect to it, and so do our own (`env.servers`). Tests: `pytest
tests/commands/test_serve.py`, and over real sockets `make test-adapters`.
"""

from __future__ import annotations

import argparse
import ipaddress
import sys
from collections.abc import Sequence

from train.commands.options import recipe_settings, whole
from train.common.errors import ConfigError
from train.config.run import TrainConfig

MIB = 2**20


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Serve until interrupted."""
    parser.epilog = (
        "Further words are those of `paravt train`: the name of a recipe, whose group env is "
        "served, and --env.key VALUE. Players must use the same."
    )
    parser.add_argument("--openenv", action="store_true", help="the protocol; there is no other")
    parser.add_argument(
        "--host", default="127.0.0.1", help="there is no authentication: %(default)s"
    )
    parser.add_argument("--port", type=whole(0), default=8000)
    parser.add_argument("--sessions", type=whole(1), default=64, help="most episodes at a time")
    parser.add_argument("--pictures", choices=("jpeg", "png"), default="jpeg")
    parser.add_argument("--splits", nargs="+", default=[], help="default: env.split alone")
    parser.add_argument("--max-mb", type=whole(1), default=64, help="of an observation's pictures")
    parser.add_argument("--max-message-mb", type=whole(1), default=4, help="of what is received")
    args, rest = parser.parse_known_args(words)
    if not args.openenv:
        raise ConfigError("serve: give --openenv, the protocol that is spoken")
    config = recipe_settings(parser, TrainConfig, rest, "paragrpo_mini")
    if config is None:
        return 0
    if config.env.servers:
        raise ConfigError("env.servers: a server plays its rows itself; leave it out")
    from train.adapters import openenv

    try:
        served = openenv.served_of(config.env, args.splits, args.pictures, args.max_mb * MIB)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    limit = args.max_message_mb * MIB
    app = openenv.make_app(served, args.sessions, limit)
    tasks = ", ".join(f"{name}: {len(one.tasks)}" for name, one in served.simulations.items())
    print(f"tasks ({tasks}) on http://{args.host}:{args.port}", flush=True)
    if not loopback(args.host):
        print(
            f"{args.host} can be reached from outside, and there is no password",
            file=sys.stderr,
        )
    openenv.serve(app, args.host, args.port, limit)
    return 0


def loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    >>> loopback("localhost"), loopback("127.0.0.1"), loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

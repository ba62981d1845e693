"""An OpenEnv server of this environment in a thread of the test."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import uvicorn
from support.builders import SIZE

from paravt_env.episode.simulation import Simulation
from paravt_env.settings import make_settings
from train.adapters.openenv import Served, make_app

SMALL = {"frame_size": SIZE, "max_crops": 3, "frames_per_crop": 4, "frame_budget": 4}
LIMIT = 2**20
"""Bytes of a message that it takes."""


class Running:
    """A server in a thread; `stop` drops every connection."""

    def __init__(
        self, tasks: Any, sessions: int = 8, picture: str = "png", **settings: Any
    ) -> None:
        made = make_settings({**SMALL, "tasks": tasks, "split": "train", **settings})
        self.simulation = Simulation(made)
        app = make_app(Served({"train": self.simulation}, picture), sessions, LIMIT)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        config = uvicorn.Config(
            app, "127.0.0.1", self.port, ws_max_size=LIMIT, log_level="error",
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.address = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        self.simulation.close()

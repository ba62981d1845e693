"""The viewer's application: which address shows what.

Above every other file of this room; needs the extra `view` (Starlette, uvicorn), which the others
do not. Tests: `pytest tests/viewer/test_server.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from html import escape
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Route

from train.viewer.compare_page import compare_page
from train.viewer.errors import CannotShow
from train.viewer.guard import Guard
from train.viewer.listing import OUTCOMES, Filter, Source
from train.viewer.media import Media
from train.viewer.page import assets, document, link
from train.viewer.play import Tables
from train.viewer.play_page import choose_page, door_page, episode_page
from train.viewer.rollout_list import group_page, listed, rollouts_page
from train.viewer.rollout_page import rollout_page
from train.viewer.run_page import evaluation_page, list_page, live, run_page
from train.viewer.runs import Runs
from train.viewer.traces import FOLDER as HUMAN

SETTLE = 20.0
"""Seconds that the page of an episode waits for the environment before it says that it plays."""
MOST_MEMBERS = 64
"""Rollouts side by side at most."""


class Viewer:
    """What is served of some runs; each method answers one address.

    Args:
        runs: The runs.
    """

    def __init__(self, runs: Runs) -> None:
        self.runs, self.media, self.tables = runs, Media(), Tables(runs)
        self.files = assets()

    def app(self) -> Guard:
        """The application, guarded."""

        @asynccontextmanager
        async def lifespan(_: Starlette) -> Any:
            yield
            self.close()

        pages: dict[str, Callable[[Request], Response]] = {
            "/": self.home,
            "/run": self.run,
            "/curves": self.curves,
            "/evaluation": self.evaluation,
            "/rollouts": self.rollouts,
            "/group": self.group,
            "/rollout": self.rollout,
            "/video": self.video,
            "/frame": self.frame,
            "/assets/{name}": self.asset,
            "/compare": self.compare,
            "/play": self.play,
            "/play/episode": self.episode,
            "/play/frame": self.played_frame,
        }
        routes = [Route(path, answer) for path, answer in pages.items()]
        routes += [
            Route(path, answer, methods=["POST"])
            for path, answer in (("/play/start", self.start), ("/play/decide", self.decide))
        ]
        handlers: Any = {CannotShow: cannot_show}
        return Guard(Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan))

    def close(self) -> None:
        """Stop what runs beside."""
        self.tables.close()
        self.media.close()

    def home(self, request: Request) -> Response:
        """The list of runs, or the only run."""
        names = list(self.runs.folders())
        if len(names) == 1 and "all" not in request.query_params:
            return RedirectResponse(link("/run", run=names[0]).replace("&amp;", "&"))
        return HTMLResponse(list_page(self.runs))

    def run(self, request: Request) -> Response:
        """One run."""
        return HTMLResponse(run_page(self.runs, _text(request, "run")))

    def curves(self, request: Request) -> Response:
        """What grows of a run's page."""
        return HTMLResponse(live(self.runs, _text(request, "run")))

    def evaluation(self, request: Request) -> Response:
        """The tables of an evaluation."""
        name, one = _text(request, "run"), _text(request, "name")
        beside = one == "after" and "before" in self.runs.evaluations(name)
        before = self.runs.report(name, "before") if beside else None
        return HTMLResponse(evaluation_page(name, one, self.runs.report(name, one), before))

    def rollouts(self, request: Request) -> Response:
        """A list of rollouts."""
        asked = request.query_params
        outcome = asked.get("outcome", "")
        if outcome and outcome not in OUTCOMES:
            raise CannotShow(f"no outcome {outcome[:40]!r}: one of {', '.join(OUTCOMES)}", 400)
        budget = _number(request, "k") if asked.get("k") else None
        wanted = Filter(outcome, budget, asked.get("family") or None)
        page = _number(request, "page") if asked.get("page") else 0
        return HTMLResponse(
            rollouts_page(self.runs, _text(request, "run"), self._source(request), wanted, page)
        )

    def group(self, request: Request) -> Response:
        """A group side by side."""
        name, source = _text(request, "run"), self._source(request)
        if source.step is None and not source.evaluation:
            raise CannotShow("a group is of one step", 400)
        number = _number(request, "group")
        found = [one for _, one in listed(self.runs, name, source) if one.group == number]
        if not found:
            raise CannotShow(f"{source.title} has no group {number}")
        members = {
            one.place: self.runs.shown(name, source, one.place) for one in found[:MOST_MEMBERS]
        }
        return HTMLResponse(group_page(name, source, members))

    def rollout(self, request: Request) -> Response:
        """One rollout."""
        name, source, place = self._place(request)
        one = self.runs.shown(name, source, place)
        count = len(listed(self.runs, name, source))
        return HTMLResponse(rollout_page(name, source, place, one, count))

    def video(self, request: Request) -> Response:
        """The video of a rollout, in ranges as players ask."""
        path, kind = self.media.file(self.runs.shown(*self._place(request)).video)
        return FileResponse(path, media_type=kind)

    def frame(self, request: Request) -> Response:
        """One frame of a rollout's video."""
        try:
            seconds = float(request.query_params.get("t", ""))
        except ValueError as error:
            raise CannotShow("t: seconds expected", 400) from error
        height = _number(request, "h") if request.query_params.get("h") else 144
        data = self.media.frame(self.runs.shown(*self._place(request)).video, seconds, height)
        return Response(
            data, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"}
        )

    def asset(self, request: Request) -> Response:
        """A script or the style sheet."""
        name = request.path_params["name"]
        if name not in self.files:
            raise CannotShow("no such file")
        content, kind = self.files[name]
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    def compare(self, request: Request) -> Response:
        """Two runs beside each other."""
        asked = request.query_params
        return HTMLResponse(compare_page(self.runs, asked.get("a", ""), asked.get("b", "")))

    def play(self, request: Request) -> Response:
        """Choose whose tasks to play, or a task."""
        name = request.query_params.get("run", "")
        names = list(self.runs.folders())
        if not name and len(names) != 1:
            return HTMLResponse(door_page(self.runs))
        name = name or names[0]
        table, played = self.tables.of(name), f"{HUMAN}/after"
        there = self.runs.evaluations(name)
        done, evaluated = (
            [(one.task_id, one.frame_budget) for one in self.runs.rows(name, evaluation)]
            if evaluation in there
            else []
            for evaluation in (played, "after")
        )
        return HTMLResponse(choose_page(name, table, done, evaluated))

    def episode(self, request: Request) -> Response:
        """An episode as it stands, once it asks for something or has ended."""
        name, table, episode = self.tables.episode(_text(request, "episode"))
        episode.settle(SETTLE)
        model = None
        if episode.rollout is not None and "after" in self.runs.evaluations(name):
            asked = (episode.start.task_id, episode.start.frame_budget)
            rows = self.runs.rows(name, "after")
            model = next((one for one in rows if (one.task_id, one.frame_budget) == asked), None)
        return HTMLResponse(episode_page(name, table, episode, model))

    def played_frame(self, request: Request) -> Response:
        """A frame that the player was shown."""
        _, _, episode = self.tables.episode(_text(request, "episode"))
        number = _number(request, "n")
        if number >= len(episode.frames):
            raise CannotShow("no such frame")
        headers = {"cache-control": "private, max-age=3600"}
        return Response(episode.frames[number].data, media_type="image/jpeg", headers=headers)

    async def start(self, request: Request) -> Response:
        """Begin an episode."""
        sent = await _sent(request)
        run, task, budget = sent.get("run"), sent.get("task"), sent.get("k")
        if not isinstance(run, str) or not isinstance(task, str) or type(budget) is not int:
            return _problem(CannotShow("run, task and k are needed", 400))
        try:
            episode = await run_in_threadpool(self.tables.start, run, task, budget)
        except CannotShow as error:
            return _problem(error)
        page = link("/play/episode", episode=episode.name)
        return JSONResponse({"page": page})

    async def decide(self, request: Request) -> Response:
        """Take a turn's decision."""
        sent = await _sent(request)
        turn = sent.get("turn")
        try:
            if type(turn) is not int:
                raise CannotShow("turn is missing", 400)
            _, _, episode = self.tables.episode(str(sent.get("episode")))
            episode.decide(turn, sent)
        except CannotShow as error:
            return _problem(error)
        return JSONResponse({})

    def _source(self, request: Request) -> Source:
        return Source.parse(_text(request, "source"))

    def _place(self, request: Request) -> tuple[str, Source, int]:
        return _text(request, "run"), self._source(request), _number(request, "n")


def cannot_show(request: Request, error: Exception) -> Response:
    """The page that says why something is not shown."""
    status = error.status if isinstance(error, CannotShow) else 500
    said = f"<h1>Not shown</h1><p>{escape(str(error))}</p>"
    return HTMLResponse(document("Not shown", [said]), status)


async def _sent(request: Request) -> dict[str, Any]:
    """The object that a request brings; an empty one where it brings something else."""
    try:
        content = await request.json()
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _problem(error: CannotShow) -> Response:
    return JSONResponse({"problem": str(error)}, error.status)


def serve(viewer: Viewer, host: str, port: int) -> None:
    """Serve until interrupted."""
    uvicorn.run(
        viewer.app(),
        host=host,
        port=port,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=2,
        ws="none",
    )


def _text(request: Request, name: str) -> str:
    value = request.query_params.get(name, "")
    if not value:
        raise CannotShow(f"{name} is missing", 400)
    return value


def _number(request: Request, name: str) -> int:
    value = _text(request, name)
    if not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise CannotShow(f"{name}: a whole number expected", 400)
    return int(value)

"""The data engine: from a folder of long videos to rows with a verdict each.

Each video goes its way by itself: opened, divided into clips, every clip captioned, questions asked
for in every category, checked by themselves, judged by solvers. Many steps run at once
(`train.datagen.steps`); every request goes through the calls of the set (`train.datagen.calls`), so
that a stopped run resumes where it was, and ends with the same rows. Command:
`paravt data reason --source FOLDER ...`. Tests: `pytest tests/datagen/test_data_engine.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from agents.chat.client import ChatClient, ChatConfig
from paravt_env.common.http.client import Usage
from paravt_env.common.progress import Progress
from paravt_env.rewards.terms.answer import tokens
from paravt_env.video.store.store import FrameStore
from train.common.errors import ConfigError
from train.config.reason import ReasonConfig
from train.datagen.calls import FILE, Calls
from train.datagen.captions import Caption, caption_call, cut, read_caption
from train.datagen.checks import check
from train.datagen.clips import Clip, clips_of
from train.datagen.judging import Judge, Verdict
from train.datagen.questions import Row, question_call, read_questions, row_of
from train.datagen.refusal import BudgetSpent, Rejected
from train.datagen.steps import Step, run_steps
from train.datagen.videos import Film, doubles_of, names_of, open_film

Error = Rejected | BudgetSpent


@dataclass
class Made:
    """What a run knows at its end.

    Attributes:
        films: Videos that could be opened, by name.
        captions: Caption of each clip, or why there is none, by the video's name.
        verdicts: Rows that were judged, by id.
        errors: Why another planned row is not there, by id.
        items: What the writer's reply held for a row, by id; anything.
        spent: By step, all runs together.
        over: Whether the budget stopped it.
    """

    films: dict[str, Film] = field(default_factory=dict)
    captions: dict[str, list[Caption | tuple[Clip, Error]]] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    errors: dict[str, Error] = field(default_factory=dict)
    items: dict[str, Any] = field(default_factory=dict)
    spent: dict[str, Usage] = field(default_factory=dict)
    over: bool = False


class Engine:
    """Makes the rows of a set.

    Args:
        config: Everything that is set.
        pause: Waits between two attempts of a request.
        progress: Whether a bar is shown.

    Raises:
        ConfigError: No videos, or another process makes this set.
        ValueError: A server has no address or no model.
    """

    def __init__(
        self,
        config: ReasonConfig,
        pause: Callable[[float], None] = time.sleep,
        progress: bool = True,
    ) -> None:
        self.config, self.progress = config, progress
        self._bar: Progress | None = None
        self.folder, self.names = names_of(config.source, config.videos)
        self._clients: dict[str, ChatClient] = {}
        self.captioner, self.writer, *self.solvers = (
            self._client(server, role, pause) for role, server in _servers(config)
        )
        output = Path(config.output)
        output.mkdir(parents=True, exist_ok=True)
        self.calls = Calls(output / FILE, config.max_cost, config.max_tokens, config.ask_again)
        self.store = FrameStore()
        self.judge = Judge(config, self.calls, self.solvers, self.store)
        self.made = Made()

    def run(self) -> Made:
        """Make what is missing, and say what there is.

        Raises:
            OSError: A server is gone, or refuses; what was made is kept.
            ConfigError: PySceneDetect is needed and not installed.
        """
        servers = [self.captioner, self.writer, *self.solvers]
        width = max(server.config.concurrency for server in servers)
        self._show()
        try:
            run_steps(self._videos(), width)
        finally:
            for client in self._clients.values():
                client.close()
            self.store.close()
            self.calls.close()
        self.made.spent, self.made.over = dict(self.calls.spent), self.calls.over
        return self.made

    @property
    def planned(self) -> list[str]:
        """Ids of all rows that the settings ask for, in order."""
        return [row for name in self.names for row in self._rows_of(name)]

    def _client(self, server: ChatConfig, role: str, pause: Callable[[float], None]) -> ChatClient:
        """The client of a server; those with the same settings are one, and share its limits."""
        try:
            return self._clients.setdefault(repr(server), ChatClient(server, pause))
        except ValueError as error:
            raise ConfigError(f"{role}: {error}") from error

    def _videos(self) -> Iterator[Step]:
        doubles = doubles_of(self.folder, self.names)
        for name in self.names:
            if name in doubles:
                message = f"has the content of {doubles[name]}"
                self._give_up(name, Rejected("duplicate_video", message))
            elif self.calls.over and name not in self.calls.known:
                self._give_up(name, BudgetSpent(name))
            else:
                yield Step(partial(_outcome, self._open, name), partial(self._opened, name))

    def _open(self, name: str) -> tuple[Film, list[Clip]]:
        config = self.config
        film = open_film(self.folder, name, self.store, config.splits, config.seed)
        return film, clips_of(film, self.store, config.clips)

    def _opened(self, name: str, opened: tuple[Film, list[Clip]] | Error) -> Iterator[Step]:
        if isinstance(opened, Error):
            self._give_up(name, opened)
            return
        film, clips = opened
        self.made.films[name] = film
        self.made.captions[name] = []
        for clip in clips:
            work = partial(_outcome, self._caption, film, clip)
            yield Step(work, partial(self._captioned, film, clip, len(clips)))

    def _caption(self, film: Film, clip: Clip) -> Caption:
        config = self.config.clips
        call = caption_call(film, clip, config, self.captioner, self.store)
        text, key = self.calls.ask(self.captioner, call, read_caption)
        return Caption(clip, cut(text, config.caption_characters), key)

    def _captioned(
        self, film: Film, clip: Clip, count: int, caption: Caption | Error
    ) -> Iterator[Step]:
        there = self.made.captions[film.name]
        there.append((clip, caption) if isinstance(caption, Error) else caption)
        if len(there) < count:
            return
        there.sort(key=lambda one: one.clip if isinstance(one, Caption) else one[0])
        captions = [one for one in there if isinstance(one, Caption)]
        for one in there:
            if not isinstance(one, Caption) and isinstance(one[1], BudgetSpent):
                self._give_up(film.name, one[1])
                return
        if not captions or len(captions) < self.config.clips.least_captions * count:
            message = f"{len(captions)} of {count} clips have a caption"
            self._give_up(film.name, Rejected("captions", message))
            return
        categories = self.config.questions.categories
        replies: dict[str, Any] = {}
        for category in categories:
            work = partial(_outcome, self._question, film, captions, category)
            yield Step(work, partial(self._asked, film, captions, replies, category))

    def _question(
        self, film: Film, captions: Sequence[Caption], category: str
    ) -> tuple[list[Any], str]:
        call = question_call(film, captions, category, self.config.questions)
        return self.calls.ask(self.writer, call, read_questions)

    def _asked(
        self, film: Film, captions: Sequence[Caption], replies: dict[str, Any], category: str,
        reply: tuple[list[Any], str] | Error,
    ) -> Iterator[Step]:  # fmt: skip
        """Once all categories of a video have their reply, its rows are checked in order."""
        replies[category] = reply
        if len(replies) < len(self.config.questions.categories):
            return
        seen: set[tuple[str, ...]] = set()
        for row_id in self._rows_of(film.name):
            row = _outcome(self._row, row_id, film, captions, replies, seen)
            if isinstance(row, Error):
                self._put(row_id, row)
            else:
                yield Step(partial(self.judge.judge, row, captions), self._judged)

    def _row(
        self, row_id: str, film: Film, captions: Sequence[Caption], replies: dict[str, Any],
        seen: set[tuple[str, ...]],
    ) -> Row:  # fmt: skip
        category, _, number = row_id.removeprefix(f"{film.name}:").rpartition("-")
        reply = replies[category]
        if isinstance(reply, Error):
            raise reply
        items, key = reply
        if int(number) >= len(items):
            raise Rejected("missing", f"the reply holds {len(items)} questions")
        config, item = self.config, items[int(number)]
        self.made.items[row_id] = item
        row = row_of(item, row_id, film, category, captions, config.questions, key)
        asked = tuple(tokens(row.question))
        if asked in seen:
            raise Rejected("duplicate", row.question)
        seen.add(asked)
        check(row, config.checks)
        return row

    def _judged(self, verdict: Verdict) -> Iterator[Step]:
        self.made.verdicts[verdict.row.id] = verdict
        self._show()
        return iter(())

    def _rows_of(self, name: str) -> list[str]:
        asked = self.config.questions
        return [f"{name}:{c}-{n}" for c in asked.categories for n in range(asked.per_category)]

    def _give_up(self, name: str, error: Error) -> None:
        for row_id in self._rows_of(name):
            self._put(row_id, error)

    def _put(self, row_id: str, error: Error) -> None:
        self.made.errors[row_id] = error
        self._show()

    def _show(self) -> None:
        asked, spent = self.config.questions, self.calls.total
        total = len(self.names) * len(asked.categories) * asked.per_category
        done = len(self.made.verdicts) + len(self.made.errors)
        amount = f"{done}/{total}, {spent.requests} requests, cost {spent.cost:.4g}"
        if self._bar is None:
            self._bar = Progress("reason: rows", total, self.progress)
        self._bar.show(done, amount)


def _servers(config: ReasonConfig) -> list[tuple[str, ChatConfig]]:
    solvers = config.solvers or (config.writer,)
    named = [(f"solvers[{number}]", server) for number, server in enumerate(solvers)]
    return [("captioner", config.captioner), ("writer", config.writer), *named]


def _outcome(work: Callable[..., Any], *args: Any) -> Any:
    """What the work returns, or why it has nothing to return."""
    try:
        return work(*args)
    except (Rejected, BudgetSpent) as error:
        return error

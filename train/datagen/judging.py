"""What becomes of one row: own checks are over, now solvers are asked, one after another.

Between the engine, which runs many rows at once, and the solvers. A row is rejected as soon as it
is known to be, so that nothing is paid for what cannot be kept. Tests: `pytest
tests/datagen/test_data_engine.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agents.chat.client import ChatClient
from paravt_env.video.store.store import FrameStore
from train.config.reason import ReasonConfig
from train.datagen.calls import Call, Calls
from train.datagen.captions import Caption
from train.datagen.questions import Row
from train.datagen.refusal import BudgetSpent, Rejected
from train.datagen.solvers import blind_call, read_answer, shuffled, solve_call


@dataclass
class Verdict:
    """What was found out about a row.

    Attributes:
        row: The row.
        error: Why it is rejected, or not judged to the end; None for a row that is kept.
        blind_first: Whether the first blind try found the answer: a measure over all rows.
        blind_after: Whether one more try did, which rejects nothing: a measure over kept rows.
        calls: Keys of the calls, by step.
    """

    row: Row
    error: Rejected | BudgetSpent | None = None
    blind_first: bool | None = None
    blind_after: bool | None = None
    calls: dict[str, list[str]] = field(default_factory=dict)


class Judge:
    """Asks solvers about rows; safe from any thread.

    Args:
        config: What a row has to pass.
        calls: Those of the set.
        solvers: Servers; the i-th try is asked of the i-th, in a circle.
        store: Decodes frames of the evidence, where solvers see frames.
    """

    def __init__(
        self, config: ReasonConfig, calls: Calls, solvers: Sequence[ChatClient], store: FrameStore
    ) -> None:
        self.config, self.calls, self.solvers, self.store = config, calls, solvers, store

    def judge(self, row: Row, captions: Sequence[Caption]) -> Verdict:
        """What becomes of a row.

        Raises:
            OSError: A server is gone.
        """
        verdict = Verdict(row)
        try:
            self._check_blind(verdict)
            self._check_solvers(verdict, captions)
            if self.config.checks.blind_tries:
                verdict.blind_after = self._finds_blind(verdict, self.config.checks.blind_tries)
        except (Rejected, BudgetSpent) as error:
            verdict.error = error
        return verdict

    def _check_blind(self, verdict: Verdict) -> None:
        tries = self.config.checks.blind_tries
        for attempt in range(tries):
            found = self._finds_blind(verdict, attempt)
            if not attempt:
                verdict.blind_first = found
            if not found:
                return
        if tries:
            raise Rejected("blind", f"the answer was found without the video {tries} times")

    def _finds_blind(self, verdict: Verdict, attempt: int) -> bool:
        row, seed = verdict.row, self.config.seed
        options = shuffled(row, seed, attempt)
        call = blind_call(row, options, attempt, self.config.checks)
        return self._answer(verdict, call, options, attempt) == row.answer

    def _check_solvers(self, verdict: Verdict, captions: Sequence[Caption]) -> None:
        row, checks = verdict.row, self.config.checks
        for number in range(checks.solvers):
            attempt = 1000 + number  # other orders than those of the blind tries
            options = shuffled(row, self.config.seed, attempt)
            server = self._solver(attempt)
            height = self.config.clips.height
            call = solve_call(row, options, attempt, captions, checks, server, self.store, height)
            answer = self._answer(verdict, call, options, attempt)
            if answer != row.answer:
                raise Rejected(
                    "disagree", f"solver {number + 1} of {checks.solvers} answers {answer!r}"
                )

    def _answer(self, verdict: Verdict, call: Call, options: Sequence[str], attempt: int) -> str:
        server = self._solver(attempt)
        answer, key = self.calls.ask(server, call, lambda text: read_answer(text, options))
        verdict.calls.setdefault(call.step, []).append(key)
        return answer

    def _solver(self, attempt: int) -> ChatClient:
        return self.solvers[attempt % len(self.solvers)]

"""A soak: two thousand episodes with an agent that fails at random; all counted, memory flat."""

import gc
import random
import tracemalloc
from collections import Counter

from support.builders import ListTasks, make_task
from support.evaluations import HEADER, Settings

from agents.base import AgentError, Completion, Decision
from paravt_env.protocol import action_from_completion, render_completion
from train.evaluation.evaluate import evaluate
from train.evaluation.row_file import RowFile

EPISODES = 2000
GARBAGE = (
    "",
    "<answer>",
    "</think>" * 50,
    '<tool_call>{"name": [[[',
    "\x00\ud800 " * 20,
    "B" * 9000,
)


class Failing:
    """Fails as servers and models do; remembers how each episode must end."""

    def __init__(self):
        self.rng = random.Random(0)
        self.calls = Counter()

    def begin(self, rows):
        pass

    def act(self, observations, rows):
        luck = self.rng.random()
        if luck < 0.03:
            self.calls["lost"] += 1
            raise self.rng.choice((TimeoutError, ConnectionResetError, AgentError))("the server")
        return [self.decide() for _ in rows]

    def decide(self):
        luck = self.rng.random()
        if luck < 0.1:
            self.calls["failed"] += 1
            return Decision.failed("no reply", 3)
        if luck < 0.3:
            text = self.rng.choice(GARBAGE)
        elif luck < 0.5:
            text = render_completion("look", [(1.0, 3.0), (50.0, 60.0)])
        else:
            text = render_completion("I know it", [], self.rng.choice("AB"))
        return Decision(action_from_completion(text, 3), Completion(text, (), (), ()))


def test_two_thousand_failing_episodes_are_counted_and_leave_no_memory(clip, make_vector, tmp_path):
    tasks = ListTasks(
        [
            *(make_task(clip, f"t{i:04d}") for i in range(EPISODES - 100)),
            *(make_task(str(tmp_path / "no.mp4"), f"v{i:04d}") for i in range(100)),
        ]
    )
    env = make_vector(32, tasks=tasks, frame_budget=1, frames_per_crop=1, frame_size=(16, 32))
    path = tmp_path / "after.rows.jsonl"
    rows = RowFile(path, {**HEADER, "planned": EPISODES})
    agent = Failing()
    traced = {}

    def watch(done, total, accuracy, errors):
        if done in (EPISODES // 2, EPISODES):
            gc.collect()
            traced[done] = tracemalloc.get_traced_memory()[0]

    settings = Settings(frame_budgets=(1,))
    tracemalloc.start()
    try:
        report = evaluate(agent, env, tasks, settings, watch, rows)
    finally:
        tracemalloc.stop()
        rows.close()
    assert len({row.task_id for row in report.rows}) == len(report.rows) == EPISODES
    assert report.errors["video_error"] == 100
    assert report.errors["agent_error"] > 200
    assert agent.calls["lost"] > 0
    assert agent.calls["failed"] <= report.errors["agent_error"]
    reasons = Counter(row.stop_reason for row in report.rows if not row.error)
    assert set(reasons) == {"answered", "unanswered"}
    assert sum(reasons.values()) + sum(report.errors.values()) == EPISODES
    assert all(row.score == 0.0 for row in report.rows if row.error)
    assert 0.2 < report.accuracy().mean < 0.6
    assert path.read_bytes().count(b"\n") == 1 + EPISODES
    grown = traced[EPISODES] - traced[EPISODES // 2]
    assert grown < 400_000, f"{grown} bytes in {EPISODES // 2} episodes"

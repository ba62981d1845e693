"""Fixtures that several rooms' tests share: one tiny video a session and the task sets over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
from support.builders import SIZE, ListTasks, make_clip, make_task

from paravt_env.env import LongVideoEnv
from paravt_env.vector import LongVideoVectorEnv

# Examples of a property test: few and always the same, or many new ones (`make test-nightly`).
hypothesis.settings.register_profile(
    "quick", max_examples=2_000, deadline=None, derandomize=True, database=None
)
hypothesis.settings.register_profile(
    "nightly", max_examples=100_000, deadline=None, database=None, print_blob=True
)
hypothesis.settings.load_profile("quick")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a 30 s video of 4 fps."""
    return make_clip(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def other_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Another one; its frames show 1000, 1001, ..."""
    return make_clip(tmp_path_factory.mktemp("clips"), "other.mp4", first_index=1000)


@pytest.fixture
def tasks(clip: str, other_clip: str) -> ListTasks:
    """Four tasks on two videos."""
    return ListTasks(
        [
            make_task(clip),
            make_task(
                clip, "time", question="When?", kind="grounding", options=(), answer="10.0-20.0"
            ),
            make_task(other_clip, "shape", question="Which shape?", answer="A"),
            make_task(
                other_clip,
                "name",
                question="Who?",
                kind="open",
                options=(),
                answer="Ada",
                evidence=(),
            ),
        ]
    )


@pytest.fixture
def make_env(tasks: ListTasks) -> Iterator[Callable[..., LongVideoEnv]]:
    """Builds a single environment of 3 crops of at most 4 frames; closed after the test."""
    yield from _factory(LongVideoEnv, tasks)


@pytest.fixture
def make_vector(tasks: ListTasks) -> Iterator[Callable[..., LongVideoVectorEnv]]:
    """The same as a vector environment; `num_envs` comes first."""
    yield from _factory(LongVideoVectorEnv, tasks)


def _factory(cls: Any, tasks: ListTasks) -> Iterator[Callable[..., Any]]:
    made = []

    def make(*args: Any, **settings: Any) -> Any:
        small = {
            "tasks": tasks,
            "frame_size": SIZE,
            "max_crops": 3,
            "frames_per_crop": 4,
            "frame_budget": 4,
        }
        made.append(cls(*args, **{**small, **settings}))
        return made[-1]

    yield make
    for env in made:
        env.close()

"""An environment that nobody closes goes with its threads and its frames."""

import gc
import threading
import time
import weakref

import gymnasium as gym
import pytest
from support.builders import SIZE, ListTasks, act, make_task

import paravt_env  # noqa: F401
from paravt_env.video.store.pool import DecodePool, Job


def decoding():
    return sum(thread.name == "decode" for thread in threading.enumerate())


def fewer_than(count):
    """Whether at most `count` threads decode, within seconds."""
    until = time.monotonic() + 5
    while decoding() > count and time.monotonic() < until:
        time.sleep(0.01)
    return decoding() <= count


def env_of(clip, single):
    settings = {"tasks": ListTasks([make_task(clip)]), "frame_size": SIZE, "max_crops": 3}
    if single:
        return gym.make("ParaVT-LongVideo-v0", **settings)
    return gym.make_vec("ParaVT-LongVideo-v0", num_envs=2, **settings)


@pytest.mark.parametrize("single", [True, False])
def test_environments_that_are_not_closed_leave_no_thread_and_no_frame(clip, single):
    before, caches = decoding(), []
    for _ in range(5):
        env = env_of(clip, single)
        env.reset(seed=0)
        if single:
            env.step(act((1.0, 4.0)))
        store = env.unwrapped.simulation.video.store
        assert store.kept_bytes > 0
        caches.append(weakref.ref(store._cache))
        del env, store
    assert caches[0] is not None and decoding() > 0
    gc.collect()
    assert fewer_than(before)
    assert [cache() for cache in caches] == [None] * 5


def test_a_pool_that_is_dropped_ends_its_threads_after_their_job():
    before, began, end = decoding(), threading.Event(), threading.Event()
    pool = DecodePool(1)
    pool.submit(Job(lambda deadline: (began.set(), end.wait(5)), lambda: None))
    assert began.wait(5)
    del pool
    gc.collect()
    assert decoding() == before + 1
    end.set()
    assert fewer_than(before)


def test_a_pool_keeps_nothing_of_a_job_that_is_done():
    class Held:
        def run(self, deadline):
            done.set()

    done, held, pool = threading.Event(), Held(), DecodePool(1)
    kept = weakref.ref(held)
    pool.submit(Job(held.run, lambda: None))
    assert done.wait(5)
    del held
    until = time.monotonic() + 5
    while kept() is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert kept() is None
    pool.close()

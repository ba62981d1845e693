"""Steps run a bounded number at a time, what follows before what is new."""

import threading

import pytest

from train.datagen.steps import Step, run_steps


def test_what_follows_comes_before_what_is_new_in_the_callers_thread():
    order, threads = [], set()

    def step(name, follow=()):
        def then(value):
            threads.add(threading.current_thread())
            order.append(value)
            return [step(one) for one in follow]

        return Step(lambda: name, then)

    run_steps(iter([step("a", ("a1", "a2")), step("b", ("b1",)), step("c")]), 1)
    assert order == ["a", "a1", "a2", "b", "b1", "c"]
    assert threads == {threading.current_thread()}


def test_no_more_than_the_width_run_at_once_and_that_many_do():
    barrier, lock = threading.Barrier(3), threading.Lock()
    running, most = 0, 0

    def work():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        barrier.wait(timeout=60)  # three must meet here, or nobody passes
        with lock:
            running -= 1

    run_steps(iter([Step(work, lambda _: ()) for _ in range(9)]), 3)
    assert most == 3


def test_a_failure_ends_the_run_and_nothing_new_starts():
    started = []

    def fail():
        raise RuntimeError("broken")

    def source():
        yield Step(fail, lambda _: ())
        for number in range(5):
            started.append(number)
            yield Step(lambda: None, lambda _: ())

    with pytest.raises(RuntimeError, match="broken"):
        run_steps(source(), 1)
    assert started == []

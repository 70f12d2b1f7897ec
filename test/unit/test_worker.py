"""The thread that owns torch: what it does first, and what it survives."""

import threading

import pytest

from jepa_ros.errors import InputError
from jepa_ros.nodes.common.worker import PATIENCE, Worker, describe_error


class Executor:
    """As much of an executor as a future asks of it."""

    def create_task(self, callback, *args):
        callback(*args)


@pytest.fixture
def worker():
    errors = []
    worker = Worker(errors.append, backlog=2)
    worker.errors = errors
    yield worker
    worker.close()


def asked(worker, question):
    """A future of its answer, and an event that tells when it is there."""
    there = threading.Event()
    future = worker.submit(question, Executor())
    future.add_done_callback(lambda _: there.set())
    return future, there


def test_frames_go_before_questions_and_only_the_newest_are_kept(worker):
    order, busy, begun = [], threading.Event(), threading.Event()
    worker.submit_latest(lambda: (begun.set(), busy.wait(5.0)))
    assert begun.wait(5.0)
    _, there = asked(worker, lambda: order.append("question"))
    for k in range(4):
        worker.submit_latest(lambda k=k: order.append(k))
    busy.set()
    assert there.wait(5.0)
    assert order == [2, 3, "question"] and worker.dropped == 2


def test_a_question_gets_its_turn_although_frames_never_end(worker):
    frames = []

    def frame():
        frames.append(threading.Event().wait(0.05))
        if len(frames) < 1000:
            worker.submit_latest(frame)

    worker.submit_latest(frame)
    future, there = asked(worker, lambda: len(frames))
    assert there.wait(10.0)
    assert future.result() < 3 * PATIENCE / 0.05
    frames.extend([True] * 1000)


def test_a_job_that_fails_and_a_report_that_fails_end_nothing():
    def report(error):
        raise MemoryError

    worker = Worker(report)
    try:
        worker.submit_latest(lambda: 1 / 0)
        future, there = asked(worker, lambda: "alive")
        assert there.wait(5.0) and future.result() == "alive"
    finally:
        worker.close()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("goal: expected a place, found none"), "goal: expected a place, found none"),
        (MemoryError(), "out of memory (MemoryError)"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory\nframe #0"),
            "out of memory",
        ),
        (RuntimeError("CUDA error: device lost\nmore"), "failed with RuntimeError: CUDA error: device lost"),
    ],
)
def test_failures_are_told_in_one_line(error, words):
    assert describe_error(error).startswith(words) and "\n" not in describe_error(error)


def test_a_question_that_fails_is_answered_by_its_error(worker):
    future, there = asked(worker, lambda: [0][1])
    assert there.wait(5.0) and isinstance(future.exception(), IndexError)
    assert worker.errors == []

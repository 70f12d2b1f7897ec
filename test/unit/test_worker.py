"""The thread that owns torch: the order of its jobs, and the errors that it survives."""

import threading

import pytest

from jepa_ros.errors import InputError
from jepa_ros.nodes.common.worker import REQUEST_MAX_WAIT, Worker, describe_error


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


def submit(worker, request):
    """Return the future of a request, and an event that is set when it is done."""
    there = threading.Event()
    future = worker.submit(request, Executor())
    future.add_done_callback(lambda _: there.set())
    return future, there


def test_frames_run_before_requests_and_only_the_newest_are_kept(worker):
    order, busy, begun = [], threading.Event(), threading.Event()
    worker.submit_latest(lambda: (begun.set(), busy.wait(5.0)))
    assert begun.wait(5.0)
    _, there = submit(worker, lambda: order.append("request"))
    for k in range(4):
        worker.submit_latest(lambda k=k: order.append(k))
    busy.set()
    assert there.wait(5.0)
    assert order == [2, 3, "request"] and worker.dropped == 2


def test_a_request_is_served_despite_continuous_frames(worker):
    frames = []

    def frame():
        frames.append(threading.Event().wait(0.05))
        if len(frames) < 1000:
            worker.submit_latest(frame)

    worker.submit_latest(frame)
    future, there = submit(worker, lambda: len(frames))
    assert there.wait(10.0)
    assert future.result() < 3 * REQUEST_MAX_WAIT / 0.05
    frames.extend([True] * 1000)


def test_the_thread_survives_a_failing_job_and_a_failing_report():
    def report(error):
        raise MemoryError

    worker = Worker(report)
    try:
        worker.submit_latest(lambda: 1 / 0)
        future, there = submit(worker, lambda: "alive")
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
def test_an_error_is_described_in_one_line(error, words):
    assert describe_error(error).startswith(words) and "\n" not in describe_error(error)


def test_a_failed_request_returns_its_error(worker):
    future, there = submit(worker, lambda: [0][1])
    assert there.wait(5.0) and isinstance(future.exception(), IndexError)
    assert worker.errors == []

"""World model and planner that run out of memory in motion: real allocations that the system refuses."""

import resource
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from jepa_msgs.srv import EncodeGoal

from helpers.fault_graph import Graph
from helpers.untrained_model import fresh_model
from jepa_ros.nodes.common.convert import image_message, to_stamp

pytestmark = pytest.mark.alone  # a slow model, whose plans come too late where it shares its core
SPARE = 8 * 2**20  # bytes left to a node: enough for everything but an inference


@pytest.fixture(scope="module")
def graph(start, client, tmp_path_factory):
    """A model that needs 40 MB at a time to encode, and as much to imagine: so much is asked of the system each time,
    and given back. It has learnt nothing and is slow, so the gate has to be patient with it."""
    model = fresh_model(
        tmp_path_factory.mktemp("model"),
        encoder={"type": "conv", "channels": (640, 8, 8)},
        predictor={"type": "causal", "width": 16, "depth": 1, "heads": 2, "head_dim": 16, "mlp": 2**15},
        preprocessing={"size": 512},
    )
    patient = {"latent_timeout": 2.0, "latent_stamp_timeout": 3.0, "source_timeout": 4.0, "plan_late": 2.0}
    slow = {"hold_timeout": 120.0, "latent_timeout": 2.0, "lead": 0.5, "horizon": 2, "solver": "cem"}
    parameters = {
        "camera": {"frozen_after": 0.0, "transport": "raw", "model": model},
        "planner": slow,
        "arm_gate": patient,
        "simulator": {"rate": 2.0, "width": 64, "height": 64},
    }
    return Graph(start, client, parameters, model=model)


@pytest.fixture
def arm(graph, measured):
    yield from graph.between_rows(measured)


class NoMemory:
    """Meanwhile a process gets next to no more address space than it has between two inferences. What it gives back
    meanwhile, as the stacks of threads that end, is taken from it as well."""

    def __init__(self, arm, node: str):
        self._spin, self._pid = arm.client.spin, arm.processes[node].pid
        self._ended, self._thread = threading.Event(), threading.Thread(target=self._tighten, daemon=True)

    def _used(self) -> int:
        return int(Path(f"/proc/{self._pid}/statm").read_text().split()[0]) * resource.getpagesize()

    def _limit(self, most: int) -> None:
        resource.prlimit(self._pid, resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))

    def _tighten(self) -> None:
        while not self._ended.wait(0.01):
            if (used := self._used()) < self._least:
                self._least = used
                self._limit(used + SPARE)

    def __enter__(self):
        end, self._least = time.monotonic() + 1.5, self._used()  # three pictures: at some moment none is in work
        while time.monotonic() < end:
            self._least = min(self._least, self._used())
            self._spin(0.002)
        self._limit(self._least + SPARE)
        self._thread.start()

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()
        self._limit(resource.RLIM_INFINITY)


@pytest.mark.fault(25)
@pytest.mark.parametrize(
    ("node", "cause"),
    [
        ("world_model", "world_model: inference: inference: out of memory"),
        ("planner", "planner: planning: out of memory"),
    ],
)
def test_out_of_memory_holds_the_arm_and_the_node_recovers(arm, measured, node, cause):
    arm.moving()
    with NoMemory(arm, node):
        fault = time.time()
        arm.says(cause, fault)
        stopped = arm.stops(fault)
        measured["stop_ms"] = 1e3 * (stopped.rest - fault)
        assert arm.processes[node].process.poll() is None, arm.processes[node].output
    arm.in_motion()


@pytest.mark.fault(25)
def test_a_request_that_runs_out_of_memory_is_answered_with_the_error(arm):
    image = image_message(np.zeros((64, 64, 3), np.uint8), to_stamp(0), "goal")
    request = EncodeGoal.Request(image=image)
    # Asked before as well: to find out about a client takes memory, too.
    with arm.client.asking(EncodeGoal, "encode_goal", again=10.0) as ask:
        assert ask(request).success
        with NoMemory(arm, "world_model"):
            answer = ask(request)
            assert not answer.success and answer.message.startswith("out of memory"), answer.message
        assert ask(request).success

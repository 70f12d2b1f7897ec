"""World model and planner on another computer, and the network between them and the robot goes down."""

import ctypes
import os
import shutil
import subprocess
import time

import pytest

from helpers.fault_graph import SETTINGS, Graph

pytestmark = pytest.mark.alone  # in a process that has started no DDS yet
NEW_NETWORK = 0x40000000  # CLONE_NEWNET of sched.h

# On LOCALHOST rmw_fastrtps brings shared memory whatever Fast DDS is told. The namespace has no other interface.
BY_SOCKETS = {
    "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4",
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET",
    "ROS_STATIC_PEERS": "127.0.0.1",
}


def _loopback(state: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", state], check=True, capture_output=True)


@pytest.fixture(scope="module", autouse=True)
def network():
    """A loopback interface of this module's own, which it may take down; network(state) is `up` or `down`."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as before:
        if shutil.which("ip") is None or libc.unshare(NEW_NETWORK) != 0:
            pytest.skip(f"needs ip and a network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            _loopback("up")
            yield _loopback
        finally:
            assert libc.setns(before.fileno(), NEW_NETWORK) == 0


@pytest.fixture(scope="module")
def graph(start, client, network):
    """The other computer's nodes hear and speak by sockets alone; the robot's have shared memory besides."""

    def start_here(module, parameters, remaps):
        with pytest.MonkeyPatch.context() as away:
            if module.endswith(("world_model", "planner")):
                for name, value in BY_SOCKETS.items():
                    away.setenv(name, value)
            return start(module, parameters, remaps)

    return Graph(start_here, client, {"planner": {"hold_timeout": 120.0}})


@pytest.fixture
def arm(graph, measured, network):
    yield from graph.between_rows(measured)


@pytest.mark.fault(19)
@pytest.mark.parametrize("seconds", [1.0, 8.0])
def test_a_network_loss_stops_the_arm_by_local_timeouts_and_motion_resumes(arm, measured, network, seconds):
    arm.moving()
    fault = time.time()
    network("down")
    try:
        stopped = arm.stops(fault)
        measured["stop_ms"] = 1e3 * (stopped.rest - fault)
        measured["caught_ms"] = arm.caught_ms(stopped, SETTINGS.latent_timeout)
        assert measured["caught_ms"] < 50.0
        arm.says("arm_gate: holding: no latent for 0.20 s", fault)
        arm.client.spin(seconds)
        assert arm.rests
    finally:
        network("up")
    arm.resumes(time.time(), 60.0)

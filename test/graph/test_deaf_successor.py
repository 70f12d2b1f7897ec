"""A process that is killed between two messages; with Fast DDS alone its successor would receive nothing."""

import mmap
import os
import re
import signal
from pathlib import Path

import pytest
from std_msgs.msg import String

from helpers.nodes import HELPERS, wait_for
from jepa_ros.nodes.common.qos import LATCHED
from jepa_ros.nodes.common.shared_memory import FOLDER, find_node

pytestmark = pytest.mark.graph
PLAIN = HELPERS / "plain_node.py"
LISTENER = 20612  # bytes from port_id to the status of a port's first listener (Fast DDS 2.14, x86-64)
IN_USE, WAITING = 1, 2


def port_of(pid: int) -> Path | None:
    """Of the process's port what it lies in."""
    opened = (os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
    names = [found[1] for name in opened if (found := re.search(r"(fastrtps_port\d+)_el", name))]
    return FOLDER / names[0] if names else None


def test_a_restarted_process_receives_after_a_kill_between_two_messages(start, client):
    said, hooks = client.node.create_publisher(String, "needed", LATCHED), client.collect(String, "hooks", LATCHED)
    timer = client.node.create_timer(0.1, lambda: said.publish(String(data="x")))
    first = start(PLAIN, {"needs": True})
    client.wait_for(lambda: any("activate" in m.data for m in hooks), "the first one, which hears")
    path = port_of(first.process.pid)
    if path is None:
        pytest.skip("this middleware has no shared-memory port")
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        status = find_node(memory, int(path.name.removeprefix("fastrtps_port"))) + LISTENER
        wait_for(lambda: memory[status] == IN_USE | WAITING, "the listener's status", 5.0)
        first.signal(signal.SIGKILL)
        first.wait()
        memory[status] = IN_USE
    hooks.clear()
    start(PLAIN, {"needs": True})
    client.wait_for(lambda: any("activate" in m.data for m in hooks), "the second one, which hears", 20.0)
    client.node.destroy_timer(timer)

"""Real node processes on a ROS domain of their own, and a client node to look at them with."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jepa_ros.bringup.environment import DOMAINS, free_domain
from jepa_ros.resources import config_path

ROOT = Path(__file__).resolve().parents[2]
HELPERS = Path(__file__).parent


def choose_domain() -> None:
    """Move this process, and what it starts from now on, to a ROS domain that nobody is in.

    Each worker of pytest-xdist draws from domains of its own, as two could find the same one free at the same time.
    """
    worker, workers = (os.environ.get(f"PYTEST_XDIST_{name}", "") for name in ("WORKER", "WORKER_COUNT"))
    number, count = int(worker.removeprefix("gw") or 0), int(workers or 1)
    own = [domain for domain in DOMAINS if domain % count == number % count]
    domain = free_domain(random.sample(own, len(own)))
    os.environ["ROS_DOMAIN_ID"] = str(domain)
    _remove_ports(domain)


def _remove_ports(domain: int) -> None:
    """Remove the shared memory of Fast DDS that killed processes of earlier tests have left in a domain.

    Whoever finds their ports there waits for processes that do not read any more, a second each time.
    """
    first = 7400 + 250 * domain  # port numbers of a domain: RTPS 2.5, section 9.6.2.3
    for file in Path("/dev/shm").glob("*fastrtps_port*"):
        number = re.search(r"port(\d+)", file.name)
        if number and first <= int(number[1]) < first + 250:
            file.unlink(missing_ok=True)


# Set before rclpy starts in this process: tests never meet a robot or another desk.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
choose_domain()


def wait_for(condition: Callable[[], object], what: str, timeout: float = 30.0, spin: Callable | None = None):
    """The condition's first truthy value; fails the test with `what` after timeout s. spin(s) passes the time."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        spin(0.05) if spin else time.sleep(0.02)
    pytest.fail(f"waited {timeout:g} s in vain for {what}")


class NodeProcess:
    """A node in a process of its own; its output is kept in a file. Ended by its own pid, whatever the test did."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.log = log
        with log.open("w") as sink:
            self.process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, cwd=ROOT, env=environment())
        self.pid = self.process.pid

    @property
    def output(self) -> str:
        return self.log.read_text()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 30.0) -> int:
        """Exit code; negative where a signal ended it."""
        return self.process.wait(timeout)

    def says(self, text: str, timeout: float = 30.0) -> None:
        wait_for(lambda: text in self.output or self.process.poll() is not None, f"{text!r} in the output", timeout)
        assert text in self.output, self.output

    def end(self) -> None:
        end_all([self])


def end_all(processes: list[NodeProcess]) -> None:
    """End what still runs: all are asked to at once, and killed where that takes longer than 10 s."""
    running = [p.process for p in processes if p.process.poll() is None]
    for process in running:
        process.send_signal(signal.SIGCONT)  # a test that failed may have left it stopped
        process.send_signal(signal.SIGINT)
    end = time.monotonic() + 10.0
    for process in running:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def environment() -> dict[str, str]:
    """Environment of node processes: this test's domain, one thread a library, and the source tree first."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    # As users have it. With the small segments of Fast DDS's own profile, messages for a suspended process fill them,
    # and some nodes do not hear each other afterwards.
    own = "FASTDDS_BUILTIN_TRANSPORTS" in os.environ
    profile = {} if own else {"FASTRTPS_DEFAULT_PROFILES_FILE": str(config_path("fastdds_localhost.xml"))}
    return {
        **profile,
        **os.environ,
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
        "LP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }


def hide_package(monkeypatch: pytest.MonkeyPatch, folder: Path, package: str) -> None:
    """Processes started from now on in this test do not find a Python package. folder: an empty one."""
    (folder / "sitecustomize.py").write_text(f"import sys\n\nsys.modules[{package!r}] = None\n")
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("PYTHONPATH", path)


def ros_arguments(parameters: dict | None = None, remaps: dict | None = None) -> list[str]:
    out = ["--ros-args"]
    for name, value in (parameters or {}).items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        out += ["-p", f"{name}:={text}"]
    for old, new in (remaps or {}).items():
        out += ["-r", f"{old}:={new}"]
    return out


@pytest.fixture(scope="module")
def domain():
    """One that nobody is in, for this module alone: participants of the last module may take a while to go."""
    choose_domain()


@pytest.fixture(scope="module")
def start(domain, tmp_path_factory):
    """start(module or script, parameters={}, remaps={}) -> NodeProcess, ended with the test module."""
    started: list[NodeProcess] = []
    logs = tmp_path_factory.mktemp("logs")

    def _start(target: str | Path, parameters: dict | None = None, remaps: dict | None = None) -> NodeProcess:
        program = [str(target)] if isinstance(target, Path) else ["-m", target]
        command = [sys.executable, *program, *ros_arguments(parameters, remaps)]
        started.append(NodeProcess(command, logs / f"{len(started)}.log"))
        return started[-1]

    yield _start
    end_all(started)


class Client:
    """A node in the test's process, with waiting built in."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self._rclpy = rclpy
        rclpy.init(args=[])
        self.node = rclpy.create_node(f"test_client_{os.getpid()}")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)

    def spin(self, seconds: float) -> None:
        """Handles what comes for this long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def wait_for(self, condition: Callable[[], object], what: str, timeout: float = 30.0):
        return wait_for(condition, what, timeout, spin=lambda s: self._executor.spin_once(timeout_sec=s))

    def call(self, kind: type, name: str, request, timeout: float = 30.0, again: float | None = None):
        """The response of a service.

        again: s after which a request that only reads is sent once more: an answer that leaves before the server's
        discovery has found this client is lost.
        """
        with self.asking(kind, name, timeout, again) as ask:
            return ask(request)

    @contextlib.contextmanager
    def asking(self, kind: type, name: str, timeout: float = 30.0, again: float | None = None):
        """A function that calls a service, as call() does, by the same client each time."""
        client = self.node.create_client(kind, name)

        def ask(request):
            answers, sent = [client.call_async(request)], time.monotonic()

            def answered():
                nonlocal sent
                if again is not None and time.monotonic() - sent > again:
                    answers.append(client.call_async(request))
                    sent = time.monotonic()
                return next((a for a in answers if a.done()), None)

            return self.wait_for(answered, f"the response of {name}", timeout).result()

        try:
            self.wait_for(client.service_is_ready, f"service {name}", timeout)
            yield ask
        finally:
            self.node.destroy_client(client)

    def collect(self, kind: type, topic: str, qos=10) -> list:
        """A list that fills with the topic's messages."""
        messages: list = []
        self.node.create_subscription(kind, topic, messages.append, qos)
        return messages

    def state(self, node: str) -> str:
        from lifecycle_msgs.srv import GetState

        return self.call(GetState, f"{node}/get_state", GetState.Request(), again=2.0).current_state.label

    def transition(self, node: str, label: str) -> bool:
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        number = getattr(Transition, f"TRANSITION_{label.upper()}")
        request = ChangeState.Request(transition=Transition(id=number))
        return self.call(ChangeState, f"{node}/change_state", request).success

    def set_parameters(self, node: str, **values):
        """The SetParametersResult of each."""
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        messages = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        request = SetParameters.Request(parameters=messages)
        return self.call(SetParameters, f"{node}/set_parameters", request).results

    def get_parameter(self, node: str, name: str):
        from rcl_interfaces.srv import GetParameters
        from rclpy.parameter import parameter_value_to_python

        request = GetParameters.Request(names=[name])
        response = self.call(GetParameters, f"{node}/get_parameters", request, again=2.0)
        return parameter_value_to_python(response.values[0])

    def close(self) -> None:
        self._executor.remove_node(self.node)
        self.node.destroy_node()
        self._executor.shutdown(timeout_sec=1.0)
        self._rclpy.try_shutdown()


@pytest.fixture(scope="module")
def client(domain):
    client = Client()
    yield client
    client.close()

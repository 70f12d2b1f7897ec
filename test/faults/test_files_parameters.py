"""Row 21: absurd parameters are refused whole, with the reason, by running nodes and at their start."""

import math

import pytest
from rcl_interfaces.msg import Parameter as Message
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters, SetParametersAtomically

from helpers.nodes import wait_for

pytestmark = pytest.mark.fault(21)

CAMERA = {"max_age": 0.4, "timeout": 1.5}


@pytest.fixture(scope="module")
def camera(start, client):
    process = start("jepa_ros.nodes.camera", {"timeout": 2.0})
    client.wait_for(lambda: client.state("/camera") == "active", "an active camera")
    return process


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("timeout", math.nan, "parameter 'timeout': expected a finite number, found nan"),
        ("timeout", math.inf, "parameter 'timeout': expected a finite number, found inf"),
        ("timeout", 1e300, "parameter 'timeout': expected 0.05 to 60 s, found 1e+300"),
        ("timeout", -1.0, "parameter 'timeout': expected 0.05 to 60 s, found -1.0"),
        ("timeout", "soon", "parameter 'timeout': expected a number, found 'soon'"),
        ("timeout", [1.0], "parameter 'timeout': expected a number, found"),
        ("size", 2**40, "parameter 'size': fixed while the node is configured"),
        ("transport", "telepathy", "parameter 'transport': fixed while the node is configured"),
        ("autostart", False, "parameter 'autostart': read-only"),
        ("no_such", 1.0, "parameter 'no_such': not a parameter of this node"),
    ],
)
def test_a_parameter_request_with_an_absurd_value_changes_nothing(camera, client, name, value, reason):
    before = [client.get_parameter("/camera", known) for known in CAMERA]
    results = client.set_parameters("/camera", **CAMERA, **{name: value}) if name not in CAMERA else None
    results = results or client.set_parameters("/camera", **CAMERA | {name: value})
    assert not any(result.successful for result in results) and reason in results[0].reason
    assert [client.get_parameter("/camera", known) for known in CAMERA] == before
    assert client.state("/camera") == "active"


@pytest.mark.parametrize(("kind", "service"), [(SetParameters, "set"), (SetParametersAtomically, "set_atomically")])
@pytest.mark.parametrize("type_", [10, 200, ParameterType.PARAMETER_NOT_SET])
def test_a_parameter_value_of_unknown_type_is_refused(camera, client, kind, service, type_):
    """rclpy raises on it, and would end the node."""
    name = "/camera/set_parameters" + service.removeprefix("set")
    value = ParameterValue(type=type_, double_value=1.0)
    request = kind.Request(parameters=[Message(name="timeout", value=value)])
    response = client.call(kind, name, request)
    (result,) = response.results if kind is SetParameters else [response.result]
    assert not result.successful and result.reason
    assert camera.process.poll() is None and client.get_parameter("/camera", "timeout") == 2.0


def test_a_path_parameter_is_accepted_at_start_but_not_over_the_network(start, client, tmp_path):
    start("jepa_ros.nodes.camera", {"autostart": False, "model": tmp_path}, {"__node": "waiting"})
    client.wait_for(lambda: client.state("/waiting") == "unconfigured", "the node")
    for path in ("/etc", "../secret", "~/m", "a/b"):
        (result,) = client.set_parameters("/waiting", model=path)
        assert not result.successful and "paths are accepted at start only" in result.reason
    assert client.get_parameter("/waiting", "model") == str(tmp_path)
    assert client.set_parameters("/waiting", model="openarm_reach")[0].successful


@pytest.mark.parametrize(
    ("node", "parameters", "reason"),
    [
        ("camera", {"timeout": -1.0}, "Camera: parameter 'timeout': expected 0.05 to 60 s, found -1.0"),
        ("camera", {"size": "large"}, "Camera: parameter 'size': expected an integer, found 'large'"),
        ("camera", {"max_age": ".nan"}, "Camera: parameter 'max_age': expected a finite number, found nan"),
        ("simulator", {"real_time_factor": 3.0}, "parameter 'real_time_factor': expected 1 unless publish_clock"),
        ("arm_gate", {"rate": 1e9}, "ArmGate: parameter 'rate': expected 20 to 1000 Hz, found 1000000000.0"),
        ("planner", {"solver": "magic"}, "parameter 'solver': expected one of icem, cem, mppi, gradient, shooting"),
        ("world_model", {"max_samples": 0}, "parameter 'max_samples': expected 1 to 100000, found 0"),
    ],
)
def test_an_absurd_parameter_at_start_ends_the_node_with_one_line(start, node, parameters, reason):
    process = start(f"jepa_ros.nodes.{node}", parameters)
    wait_for(lambda: process.process.poll() is not None, f"the end of {node}", 60.0)
    assert process.wait() == 2
    (line,) = [line for line in process.output.splitlines() if "parameter" in line]
    assert reason in line and "Traceback" not in process.output

"""The base class of all nodes: autostart, lifecycle, parameters, diagnostics, signals."""

import signal

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.srv import DescribeParameters
from std_msgs.msg import String

from helpers.nodes import HELPERS
from jepa_ros.nodes.common.qos import LATCHED

pytestmark = pytest.mark.smoke
SCRIPT = HELPERS / "plain_node.py"


def begin(start, client, name, parameters=None, says="active"):
    """A node of that name, once it has said so much."""
    process = start(SCRIPT, parameters, {"__node": name, "hooks": f"{name}/hooks", "needed": f"{name}/needed"})
    process.says(says)
    return process


@pytest.fixture(scope="module")
def plain(start, client):
    return begin(start, client, "plain")


def test_a_node_activates_itself_and_survives_illegal_transitions(plain, client):
    assert not client.transition("plain", "configure")
    assert not client.transition("plain", "activate")
    assert client.state("plain") == "active"
    assert client.transition("plain", "deactivate") and client.state("plain") == "inactive"
    assert client.transition("plain", "cleanup") and client.state("plain") == "unconfigured"
    assert not client.transition("plain", "deactivate")
    assert client.transition("plain", "configure") and client.transition("plain", "activate")
    assert client.state("plain") == "active" and plain.process.poll() is None


def test_cleanup_destroys_what_configure_created(plain, client):
    def made():
        return client.node.count_publishers("made_by_configure")

    client.wait_for(lambda: made() == 1, "the publisher that configure makes")
    assert client.transition("plain", "deactivate") and client.transition("plain", "cleanup")
    client.wait_for(lambda: made() == 0, "the publisher to go")
    assert client.transition("plain", "configure") and client.transition("plain", "activate")
    client.wait_for(lambda: made() == 1, "the publisher again")


def test_parameters_are_set_all_or_none(plain, client):
    results = client.set_parameters("plain", upper=7.0, rate=1000.0)
    assert [r.successful for r in results] == [False, False]
    assert "rate" in results[0].reason and "0.1 to 100 Hz" in results[0].reason and "1000" in results[0].reason
    assert client.get_parameter("plain", "upper") == 5.0
    assert all(r.successful for r in client.set_parameters("plain", upper=7.0, rate=60))
    assert client.get_parameter("plain", "rate") == 60.0
    assert all(r.successful for r in client.set_parameters("plain", upper=5.0, rate=10.0))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"rate": float("nan")}, "finite"),
        ({"rate": "fast"}, "a number"),
        ({"upper": 0.5}, "at least rate / 10 = 1"),
        ({"size": 128}, "fixed while the node is configured"),
        ({"mode": "burnt"}, "one of raw, cooked"),
        ({"autostart": False}, "read-only"),
    ],
)
def test_invalid_values_are_refused_with_the_reason(plain, client, values, reason):
    (result,) = client.set_parameters("plain", **values)
    assert not result.successful and reason in result.reason, result


def test_parameter_descriptors_have_unit_and_range(plain, client):
    request = DescribeParameters.Request(names=["rate", "size", "mode"])
    rate, size, mode = client.call(DescribeParameters, "plain/describe_parameters", request).descriptors
    assert rate.description == "How often. [Hz]" and rate.floating_point_range[0].to_value == 100.0
    assert size.integer_range[0].from_value == 8 and "raw, cooked" in mode.additional_constraints


def test_diagnostics_name_the_node_and_report_a_change_at_once(plain, client):
    arrays = client.collect(DiagnosticArray, "/diagnostics")

    def latest():
        mine = [s for a in arrays for s in a.status if s.hardware_id == "/plain"]
        return {s.name: s for s in mine}

    client.wait_for(lambda: "plain: figures" in latest(), "diagnostics")
    assert latest()["plain: lifecycle"].level == DiagnosticStatus.OK
    assert latest()["plain: figures"].values[0].value == "10"
    # Faster than once a second, so that the regular reports alone would miss some.
    for _ in range(2):
        assert client.transition("plain", "deactivate") and client.transition("plain", "activate")

    def inactive():
        return [s for a in arrays for s in a.status if s.name == "plain: lifecycle" and s.message == "inactive"]

    client.wait_for(lambda: len(inactive()) >= 2, "both changes")


def test_a_missing_input_is_waited_for_and_named(start, client):
    arrays = client.collect(DiagnosticArray, "/diagnostics")
    begin(start, client, "waiting", {"needs": True}, says="waiting: no message on needed yet")

    def reasons():
        mine = [s for a in arrays for s in a.status if s.name == "waiting: lifecycle"]
        return [s.message for s in mine if s.level == DiagnosticStatus.WARN]

    client.wait_for(lambda: "no message on needed yet" in reasons(), "the reason in diagnostics")
    publisher = client.node.create_publisher(String, "waiting/needed", LATCHED)
    publisher.publish(String(data="here"))
    client.wait_for(lambda: client.state("waiting") == "active", "the node to start by itself")


def test_a_node_stays_responsive_after_a_refused_configure(start, client):
    process = begin(start, client, "refusing", {"refuse": True}, says="told to refuse")
    process.says("told to refuse: expected refuse false, found true")
    assert "Traceback" not in process.output
    assert not client.transition("refusing", "configure")
    assert client.set_parameters("refusing", refuse=False)[0].successful
    assert client.transition("refusing", "configure") and client.transition("refusing", "activate")


@pytest.mark.parametrize(("name", "value", "reason"), [("rate", -1, "0.1 to 100 Hz"), ("size", "x", "an integer")])
def test_invalid_parameters_at_start_end_the_node_with_one_line(start, name, value, reason):
    process = start(SCRIPT, {name: value})
    assert process.wait() == 2
    lines = [line for line in process.output.splitlines() if line.strip()]
    assert len(lines) == 1 and f"'{name}'" in lines[0] and reason in lines[0], process.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_motion_first_and_ends_the_node_cleanly(start, client, number):
    name = f"ended_by_{signal.Signals(number).name.lower()}"
    hooks = client.collect(String, f"{name}/hooks", LATCHED)
    process = begin(start, client, name)
    client.wait_for(lambda: hooks, "the hooks topic")
    process.signal(number)
    process.signal(number)
    assert process.wait() == 0, process.output
    assert "Traceback" not in process.output and "rror" not in process.output, process.output
    expected = "configure activate shutdown_motion deactivate cleanup"
    client.wait_for(lambda: hooks[-1].data == expected, f"hooks {expected}; last were {hooks[-1].data}")


def test_a_shutdown_transition_stops_motion_and_a_signal_ends_the_process(start, client):
    hooks = client.collect(String, "asked/hooks", LATCHED)
    process = begin(start, client, "asked")
    assert client.transition("asked", "active_shutdown") and client.state("asked") == "finalized"
    client.wait_for(lambda: hooks and hooks[-1].data.endswith("shutdown_motion deactivate cleanup"), "the hooks")
    assert not client.transition("asked", "configure")
    process.signal(signal.SIGTERM)
    assert process.wait() == 0, process.output

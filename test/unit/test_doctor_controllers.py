"""`jepa_ros doctor` on what controllers take commands for, and on questions that were not answered."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from helpers.doctor_cases import (
    COMMAND,
    CONTROLLER,
    MANAGER,
    ROBOT,
    SETUP,
    STATE,
    TRAJECTORY,
    bad,
    good,
    only,
    trajectory_parameters,
)
from jepa_ros.doctor.examine import examine
from jepa_ros.doctor.finding import Level
from jepa_ros.doctor.observations import Endpoint, NodeParameters, Topic

NUMBERS = "std_msgs/msg/Float64MultiArray"
BARE = "/_NODE_NAME_UNKNOWN_"


def forward(parameters=None, kind="forward_command_controller/ForwardCommandController", node=f"/{CONTROLLER}"):
    """A forward controller in place of the trajectory controller: what was observed, and the set-up."""
    controller = ROBOT.controllers[0].model_copy(update={"type": kind})
    setup = replace(SETUP, robot=ROBOT.model_copy(update={"controllers": [controller]}))
    observed = good()
    observed.topics[f"/{controller.command_topic}"] = Topic([], [Endpoint(node, NUMBERS)])
    given = NodeParameters(use_sim_time=False, joints=[*ROBOT.joints], interface_name="position")
    observed.nodes[node] = given if parameters is None else parameters
    return observed, setup


def line_of(observed, check, setup=SETUP):
    [line] = [f.line() for f in examine(observed, setup) if f.check == check]
    return line


# -- what commands mean ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interface", ["velocity", "effort", "acceleration", ""])
def test_a_forward_controller_of_another_interface_than_position_is_an_error(interface):
    """It would take rad for rad/s."""
    given = NodeParameters(joints=[*ROBOT.joints], interface_name=interface)
    line = only("command_meaning", *forward(given))
    assert f"found '{interface}'" in line and "interface_name: position" in line


@pytest.mark.parametrize(
    "kind", ["forward_command_controller/ForwardCommandController", "position_controllers/JointGroupPositionController"]
)
def test_a_forward_controller_of_positions_has_no_findings(kind):
    assert bad(*forward(kind=kind)) == []


def test_a_node_that_follows_set_points_without_an_interface_name_is_a_warning():
    observed, setup = forward(NodeParameters(use_sim_time=False), node="/driver_node")
    assert "/driver_node without that parameter" in only("command_meaning", observed, setup, Level.WARNING)


def test_a_trajectory_controller_that_does_not_interpolate_is_an_error():
    observed = good()
    observed.nodes[f"/{CONTROLLER}"] = trajectory_parameters(interpolation_method="none")
    assert "set interpolation_method: splines" in only("interpolation", observed)


@pytest.mark.parametrize(
    ("interfaces", "fits"),
    [(["position"], True), (["position", "velocity"], True), (["velocity"], False), (["effort"], False), (None, True)],
)
def test_a_trajectory_controller_must_command_positions(interfaces, fits):
    observed = good()
    observed.nodes[f"/{CONTROLLER}"] = trajectory_parameters(command_interfaces=interfaces)
    assert [f.check for f in bad(observed)] == ([] if fits else ["command_meaning"])


@pytest.mark.parametrize(("factor", "words"), [(0.5, "found 0.5."), (0.0, "found 0, which is a pause.")])
def test_a_controller_that_is_slowed_or_paused_is_a_warning_with_its_factor(factor, words):
    observed = good()
    observed.speed_scaling = {CONTROLLER: factor}
    line = only("speed_scaling", observed, level=Level.WARNING)
    assert words in line and "Plans are refused meanwhile" in line


def test_full_speed_or_a_state_without_a_factor_has_no_findings():
    observed = good()
    for factor in (1.0, 1.0 + 1e-9, math.nan):
        observed.speed_scaling = {CONTROLLER: factor}
        assert bad(observed) == []


@pytest.mark.parametrize(
    ("is_enforced", "words"), [(False, "arm_gate alone does"), (True, "arm_gate and the controller manager do")]
)
def test_it_is_said_who_enforces_the_limits(is_enforced, words):
    observed = good()
    observed.nodes[MANAGER].enforce_command_limits = is_enforced
    line = line_of(observed, "limit_enforcement")
    assert line.startswith("ok ") and words in line and bad(observed) == []


# -- questions without an answer ---------------------------------------------------------------------------------------


def test_a_node_that_does_not_answer_is_a_warning_that_names_what_was_not_checked():
    observed = good()
    observed.nodes["/driver"] = NodeParameters(unanswered=["use_sim_time"])
    line = only("answer", observed, level=Level.WARNING)
    assert line.startswith("warning /driver: expected an answer about its parameters use_sim_time, found no answer")
    assert "ros2 param get /driver use_sim_time" in line


@pytest.mark.parametrize("unanswered", ["joints", "interface_name"])
def test_a_forward_controller_that_does_not_answer_is_an_error(unanswered):
    """Its commands carry neither names nor units."""
    given = NodeParameters(use_sim_time=False, joints=[*ROBOT.joints], interface_name="position")
    setattr(given, unanswered, None)
    given.unanswered = [unanswered]
    assert f"ros2 param get /{CONTROLLER} {unanswered}" in only("answer", *forward(given))


def test_a_trajectory_controller_that_does_not_answer_is_a_warning():
    observed = good()
    observed.nodes[f"/{CONTROLLER}"] = NodeParameters(unanswered=["joints", "interpolation_method"])
    assert "parameters joints, interpolation_method" in only("answer", observed, level=Level.WARNING)


def test_a_controller_manager_that_does_not_answer_is_an_error():
    observed = good()
    observed.controllers = None
    assert "whether controllers are active is not known" in only("answer", observed)


def test_a_controller_without_a_controller_manager_is_a_warning():
    observed = good()
    observed.controllers, observed.controller_manager = None, ""
    assert "give --robot-namespace" in only("answer", observed, level=Level.WARNING)


def test_states_that_cannot_be_read_without_messages_are_warnings_with_the_remedy():
    observed = good()
    observed.controllers, observed.speed_scaling = None, {}
    observed.missing_state_packages = ("control_msgs", "controller_manager_msgs")
    found = bad(observed)
    assert [(f.check, f.level) for f in found] == [("answer", Level.WARNING)] * 2
    lines = [f.line() for f in found]
    assert all("Run make setup-robot, or install ros-jazzy-con" in line for line in lines)
    assert "which controllers are active" in lines[0] and "speed scaling" in lines[1]


def test_a_simulator_needs_neither_a_controller_manager_nor_its_messages():
    observed = good()
    observed.topics[COMMAND] = Topic([], [Endpoint("/simulator", TRAJECTORY)])
    observed.controllers, observed.controller_manager, observed.speed_scaling = None, "", {}
    observed.missing_state_packages = ("control_msgs", "controller_manager_msgs")
    observed.nodes = {"/simulator": NodeParameters(use_sim_time=False)}
    assert bad(observed) == []


def test_an_active_controller_whose_state_is_not_received_is_a_warning():
    observed = good()
    observed.speed_scaling = {}
    assert f"warning {STATE}: " in only("answer", observed, level=Level.WARNING)


def test_nodes_without_a_known_name_are_reported_since_they_cannot_be_asked():
    observed = good()
    observed.topics["/joint_states"].publishers = [Endpoint(BARE, "sensor_msgs/msg/JointState")]
    assert "could not be asked" in only("answer", observed, level=Level.WARNING)
    observed = good()
    observed.topics[COMMAND].subscribers = [Endpoint(BARE, TRAJECTORY)]
    assert "Run the doctor again" in only("answer", observed, level=Level.WARNING)
    observed, setup = forward(node=BARE)
    observed.nodes.pop(BARE)
    assert "Run the doctor again" in only("answer", observed, setup)


def test_a_recorder_that_does_not_answer_is_no_matter():
    observed = good()
    observed.topics[COMMAND].subscribers.append(Endpoint("/rosbag2_recorder", TRAJECTORY))
    assert bad(observed) == []

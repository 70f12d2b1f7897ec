"""Goals without an image, mixtures and goals in a row, through the simulated graph."""

import time

import numpy as np
import pytest
from jepa_msgs.action import ReachGoal
from jepa_msgs.msg import GateStatus, GoalTerm, PlannerStatus, SubGoal
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from jepa_ros.graph_clients.goal_client import GoalClient, joints_term, pose_term
from jepa_ros.planning.codes import PlannerCode
from jepa_ros.resources import list_models
from jepa_ros.robot.config import load_robot
from jepa_ros.sim.cell import make_action_space
from jepa_ros.sim.scene import Scene

pytestmark = pytest.mark.skipif("openarm_reach" not in list_models(), reason="needs the model that ships")
ROBOT = load_robot("openarm")


class Graph:
    """All nodes of the simulated bring-up, a client of reach_goal, and where the tool really is."""

    def __init__(self, start, client):
        for node in ("simulator", "camera", "world_model", "planner", "arm_gate"):
            start(f"jepa_ros.nodes.{node}", {"frozen_after": 0.0} if node == "camera" else None)
        self.client, self.goals = client, GoalClient(client.node)
        self.space = make_action_space(ROBOT, Scene().urdf, 0.1)
        self.states = client.collect(JointState, "joint_states")
        self.statuses = client.collect(PlannerStatus, "planner_status")
        self.gate = client.collect(GateStatus, "gate_status")
        client.wait_for(self.goals.is_ready, "the planner", 120.0)
        client.wait_for(lambda: self.states, "joint states")
        self.wait_for_gate(GateStatus.HOLDING)

    def wait_for_gate(self, state: int) -> None:
        self.client.wait_for(lambda: self.gate and self.gate[-1].state == state, f"gate state {state}")

    def joints(self) -> np.ndarray:
        newest = self.states[-1]
        return np.array([newest.position[newest.name.index(j)] for j in ROBOT.joints])

    def tool(self) -> np.ndarray:
        self.client.spin(0.1)
        return self.space.tool_coordinates(self.joints())

    def reach(self, goal: ReachGoal.Goal):
        """(outcome, feedback) of a goal."""
        heard = []
        goal.timeout = goal.timeout or 25.0
        request = self.goals.send(goal, heard.append)
        self.client.wait_for(lambda: request.outcome, "the action's end", 60.0)
        return request.outcome, heard


def place(xy, kind=GoalTerm.POSE, **fields) -> GoalTerm:
    term = GoalTerm(kind=kind, **fields)
    term.pose.header.frame_id = ROBOT.base_frame
    term.pose.pose.position.x, term.pose.pose.position.y = map(float, xy)
    term.pose.pose.position.z = ROBOT.action_space.height
    return term


@pytest.fixture(scope="module")
def graph(start, client):
    return Graph(start, client)


def test_a_pose_goal_is_reached(graph):
    outcome, heard = graph.reach(ReachGoal.Goal(terms=[place((0.22, -0.30))]))
    assert outcome.reached and outcome.code == PlannerCode.REACHED, outcome.reason
    assert np.linalg.norm(graph.tool() - [0.22, -0.30]) < 0.02
    assert outcome.final_distance < 0.012 and heard[-1].stages == 1, "distances in m"


def test_a_joint_position_goal_is_reached(graph):
    wanted = graph.space.inverse_kinematics(np.array([0.12, -0.38]))
    term = GoalTerm(kind=GoalTerm.JOINTS, joints=list(ROBOT.joints), positions=wanted.tolist(), tolerance=0.06)
    outcome, _ = graph.reach(ReachGoal.Goal(terms=[term]))
    assert outcome.reached, outcome.reason
    assert np.linalg.norm(graph.tool() - [0.12, -0.38]) < 0.04


def test_via_goals_are_passed_in_order(graph):
    places = [(0.15, -0.40), (0.25, -0.30), (0.12, -0.25)]
    via = [SubGoal(terms=[place(xy)]) for xy in places[:2]]
    passed = []
    goal = ReachGoal.Goal(terms=[place(places[2])], via=via)
    outcome, heard = graph.reach(goal)
    for message in heard:
        if message.stage not in passed:
            passed.append(message.stage)
    assert outcome.reached and passed == [0, 1, 2], (outcome.reason, passed)
    assert {message.stages for message in heard} == {3}
    assert np.linalg.norm(graph.tool() - places[2]) < 0.02


def test_a_goal_of_two_positions_ends_between_them(graph):
    terms = [place((0.15, -0.35), tolerance=0.08), place((0.25, -0.35), tolerance=0.08)]
    outcome, _ = graph.reach(ReachGoal.Goal(terms=terms))
    assert outcome.reached, outcome.reason
    assert abs(graph.tool()[0] - 0.20) < 0.04


@pytest.mark.parametrize(
    ("terms", "code", "reason"),
    [
        ([], PlannerCode.GOAL_INVALID, "goal: no terms"),
        (
            [place((0.2, -0.3), weight=-2.0)],
            PlannerCode.GOAL_INVALID,
            "goal: expected finite positive weights, found -2",
        ),
        (
            [GoalTerm(kind=9)],
            PlannerCode.GOAL_KIND_UNKNOWN,
            "goal kind: expected 0 (image) to 4 (object), found 9",
        ),
        (
            [GoalTerm(kind=GoalTerm.IMAGE)],
            PlannerCode.GOAL_IMAGE_INVALID,
            "goal images: expected 1 (",
        ),
        (
            [GoalTerm(kind=GoalTerm.LATENT, model_id="another")],
            PlannerCode.GOAL_LATENT_INVALID,
            "goal latent: expected model",
        ),
        (
            [pose_term((0.2, -0.3, 0.455), "camera")],
            PlannerCode.GOAL_POSE_INVALID,
            "goal pose: expected one in the frame",
        ),
        (
            [place((2.0, 2.0))],
            PlannerCode.GOAL_POSE_INVALID,
            "pose: [2.0, 2.0] m lies outside the workspace",
        ),
        ([joints_term({"elbow": 0.0})], PlannerCode.GOAL_JOINTS_INVALID, "joints: expected some of"),
        (
            [place((0.2, -0.3), GoalTerm.OBJECT, object="cup")],
            PlannerCode.GOAL_OBJECT_INVALID,
            "object 'cup': the model has no probe of that name",
        ),
    ],
)
def test_an_invalid_goal_is_aborted_with_a_code_and_a_reason(graph, terms, code, reason):
    outcome, _ = graph.reach(ReachGoal.Goal(terms=terms))
    assert not outcome.reached and (outcome.status, outcome.code) == ("aborted", code)
    assert reason in outcome.reason


def test_a_goal_is_refused_at_once_while_the_gate_is_latched(graph):
    """A latched gate lets nothing through until somebody releases it; the goal under way before is not affected."""
    assert graph.client.call(Trigger, "stop", Trigger.Request()).success
    graph.wait_for_gate(GateStatus.LATCHED)
    asked = time.monotonic()
    outcome, _ = graph.reach(ReachGoal.Goal(terms=[place((0.22, -0.30))]))
    assert time.monotonic() - asked < 2.0
    assert (outcome.status, outcome.code) == ("aborted", PlannerCode.GATE_LATCHED) and "stop" in outcome.reason
    assert (graph.statuses[-1].state, graph.statuses[-1].code) == (PlannerStatus.FAILED, PlannerCode.GATE_LATCHED)
    assert graph.client.call(Trigger, "release", Trigger.Request()).success
    graph.wait_for_gate(GateStatus.HOLDING)
    assert graph.client.transition("arm_gate", "deactivate")
    graph.wait_for_gate(GateStatus.INACTIVE)
    outcome, _ = graph.reach(ReachGoal.Goal(terms=[place((0.22, -0.30))]))
    assert outcome.code == PlannerCode.GATE_INACTIVE
    graph.client.spin(1.5)  # an inactive gate publishes nothing
    outcome, _ = graph.reach(ReachGoal.Goal(terms=[place((0.22, -0.30))]))
    assert outcome.code == PlannerCode.GATE_SILENT
    assert graph.client.transition("arm_gate", "activate")
    graph.wait_for_gate(GateStatus.HOLDING)
    outcome, _ = graph.reach(ReachGoal.Goal(terms=[place((0.22, -0.30))]))
    assert outcome.reached, outcome.reason

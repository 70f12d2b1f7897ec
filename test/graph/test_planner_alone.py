"""Goals of a planner whose gate is the test: refused by the gate's newest status, and ended by a deactivation."""

import contextlib
import re
from pathlib import Path

import numpy as np
import pytest
from jepa_msgs.action import ReachGoal
from jepa_msgs.msg import GateStatus
from sensor_msgs.msg import Image
from std_msgs.msg import String

from helpers.gate_plans import urdf
from jepa_ros.graph_clients.goal_client import GoalClient, image_term
from jepa_ros.nodes.common.qos import LATCHED, RELIABLE
from jepa_ros.planning.codes import PlannerCode
from jepa_ros.resources import list_models

pytestmark = pytest.mark.skipif("openarm_reach" not in list_models(), reason="needs the model that ships")
SIDE, GOALS, ROUNDS = 1000, 4, 12  # pixels; goals, each an image of 3 MB, between two deactivations


def own_mb(pid):
    """Memory that is the process's own, as the soak counts it."""
    return int(re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1)) / 1e3


@pytest.fixture(scope="module")
def planner(start, client):
    description = client.node.create_publisher(String, "robot_description", LATCHED)
    description.publish(String(data=urdf()))
    planner = start("jepa_ros.nodes.planner", {"model": "openarm_reach"})
    planner.says("active", 120.0)
    return planner


@pytest.fixture(scope="module", autouse=True)
def gate(planner, client):
    """The timer that publishes a holding gate's status, and the publisher."""
    publisher = client.node.create_publisher(GateStatus, "gate_status", RELIABLE)
    return client.node.create_timer(0.1, lambda: publisher.publish(GateStatus(state=GateStatus.HOLDING))), publisher


@pytest.fixture(scope="module")
def goals(planner, client):
    return GoalClient(client.node)


def image_goal():
    pixels = np.random.default_rng(0).integers(0, 255, SIDE * SIDE * 3, np.uint8).tobytes()
    image = Image(height=SIDE, width=SIDE, step=3 * SIDE, encoding="rgb8", data=pixels)
    return ReachGoal.Goal(terms=[image_term(image)], timeout=60.0)


def ask(client, goals):
    """A goal under way; asked again where the answer came before both ends had found each other."""
    client.wait_for(goals.is_ready, "the planner", 60.0)
    for _ in range(5):
        request = goals.send(image_goal())
        with contextlib.suppress(pytest.fail.Exception):
            client.wait_for(lambda request=request: request.accepted, "a goal under way", 5.0)
            return request
    pytest.fail("no goal was accepted")


def test_a_goal_is_accepted_or_refused_by_the_next_gate_status(planner, client, goals, gate):
    """The answer to a release may overtake the status that tells of it."""
    holding, publisher = gate
    ask(client, goals)
    for final in (GateStatus.HOLDING, GateStatus.LATCHED):
        holding.cancel()
        publisher.publish(GateStatus(state=GateStatus.LATCHED))
        client.spin(0.1)
        request = goals.send(image_goal())
        client.spin(0.1)
        publisher.publish(GateStatus(state=final))
        holding.reset()
        client.spin(0.05)
        if final == GateStatus.LATCHED:
            client.wait_for(lambda request=request: request.outcome, "the refusal")
            assert request.outcome.code == PlannerCode.GATE_LATCHED
        else:
            client.spin(0.5)
            assert request.accepted and request.outcome is None


def test_the_client_is_informed_that_a_deactivation_ended_its_goal(planner, client, goals):
    replaced, request = ask(client, goals), ask(client, goals)
    client.wait_for(lambda: replaced.outcome, "the end of the goal that was replaced")
    assert client.transition("planner", "deactivate")
    client.wait_for(lambda: request.outcome, "the end of the goal")
    assert replaced.outcome.code == PlannerCode.REPLACED
    assert request.outcome.code == PlannerCode.DEACTIVATED and not request.outcome.reached
    assert client.transition("planner", "activate")


def test_goals_ended_by_a_deactivation_are_freed(planner, client, goals):
    levels = []
    for _ in range(ROUNDS):
        for _ in range(GOALS):
            ask(client, goals)
        assert client.transition("planner", "deactivate")
        assert client.transition("planner", "activate")
        levels.append(own_mb(planner.pid))
    assert max(levels) - levels[2] < 2 * GOALS * SIDE * SIDE * 3 / 1e6, levels

"""Latents that are no numbers, too many or another model's, and costs that are not finite."""

import copy
import math
import time

import pytest
from jepa_msgs.action import ReachGoal
from jepa_msgs.msg import GoalTerm, LatentState

from helpers.fault_graph import Graph
from helpers.graph_listener import Relay
from jepa_ros.nodes.common.convert import float32_array


@pytest.fixture(scope="module")
def graph(start, client):
    """The planner hears latents through a relay; the gate, which goes by their stamps only, hears them as they are."""
    relay = Relay(client, LatentState, "latent", "latent_seen")
    graph = Graph(start, client, remaps={"planner": {"latent": "latent_seen"}})
    graph.relay = relay
    return graph


@pytest.fixture
def arm(graph, measured):
    yield from graph.between_rows(measured)
    graph.relay.change = None


def spoilt(change):
    def spoil(message):
        message = copy.copy(message)
        change(message)
        return [message]

    return spoil


def fill(value: float):
    def change(message):
        message.data = float32_array([value] * len(message.data))

    return change


def cut(message) -> None:
    message.data = message.data[:-1]


def of_another_model(message) -> None:
    message.model_id = "another"


@pytest.mark.fault(7)
@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (fill(math.nan), "latent: expected finite values, found NaN or Inf"),
        (fill(math.inf), "latent: expected finite values, found NaN or Inf"),
        (cut, r"latent: expected \d+ values, found \d+"),
        (of_another_model, "latent: expected model '[0-9a-f]+', found 'another'"),
    ],
    ids=["nan", "inf", "short", "another model"],
)
def test_invalid_latents_are_never_used_for_planning(arm, measured, change, cause):
    arm.moving()
    fault = time.time()
    arm.relay.change = spoilt(change)
    stopped = arm.stops(fault)
    measured["stop_ms"] = 1e3 * (stopped.rest - fault)
    arm.says(f"planner: {cause}", fault)
    arm.says(f"planner: planning: {cause}", fault)
    # One plan may have been under way from a latent of before.
    assert len([t for t, _ in arm.plans if t > fault]) <= 1
    arm.relay.change = None
    arm.resumes(time.time())


@pytest.mark.fault(7)
def test_without_a_finite_cost_there_is_no_plan(arm, measured):
    """The goal is so far away that its distance is not a number that fits: no plan is better than another."""
    arm.moving()
    latent = arm.latents[-1][1]
    far = GoalTerm(kind=GoalTerm.LATENT, model_id=latent.model_id, latent=[3e38] * len(latent.data))
    fault = time.time()
    arm.ask(ReachGoal.Goal(terms=[far]))
    stopped = arm.stops(fault)
    measured["stop_ms"] = 1e3 * (stopped.rest - fault)
    arm.says("planner: no plan is allowed: none has a finite cost", fault)

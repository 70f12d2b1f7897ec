"""A model that sees through two cameras, in motion, and cameras that fall out of step."""

import time

import pytest
from sensor_msgs.msg import Image

from helpers.fault_graph import NODES, SETTINGS, Graph
from helpers.graph_listener import Relay
from helpers.untrained_model import fresh_model
from jepa_ros.nodes.common.convert import to_ns, to_stamp


@pytest.fixture(scope="module")
def graph(start, client, tmp_path_factory):
    """The model has learnt nothing: where it moves the arm to does not matter here."""
    model = fresh_model(tmp_path_factory.mktemp("model"), cameras=("frame", "wrist/frame"))
    wrist = Relay(client, Image, "image", "wrist_image_seen")
    eye = {"frozen_after": 0.0, "transport": "raw", "model": model}
    # Its camera node would drop what is late beyond 0.5 s, as stale; here the model's node has to notice.
    parameters = {"camera": eye, "wrist_camera": eye | {"max_age": 10.0}, "planner": {"hold_timeout": 120.0}}
    remaps = {"wrist_camera": {"__ns": "/wrist", "image": "/wrist_image_seen"}}
    graph = Graph(start, client, parameters, remaps, model, nodes=(*NODES, "wrist_camera"))
    graph.wrist = wrist
    return graph


@pytest.fixture
def arm(graph, measured):
    yield from graph.between_rows(measured)
    graph.wrist.change = None


@pytest.mark.fault(18)
def test_unsynchronised_cameras_give_no_latents_and_the_arm_holds(arm, measured):
    def earlier(message):
        message.header.stamp = to_stamp(to_ns(message.header.stamp) - 2 * 10**9)
        return [message]

    arm.moving()
    fault = time.time()
    arm.wrist.change = earlier
    stopped = arm.stops(fault)
    measured["stop_ms"] = 1e3 * (stopped.rest - fault)
    measured["caught_ms"] = arm.caught_ms(stopped, SETTINGS.latent_timeout)
    assert measured["caught_ms"] < 50.0
    arm.says("world_model: inference: wrist/frame: frames are stamped .* s earlier than those on frame", fault)
    arm.says("arm_gate: holding: no latent for", fault)
    arm.wrist.change = None
    arm.resumes(time.time())


@pytest.mark.fault(18)
def test_a_dropout_of_one_of_two_cameras_is_named_and_the_arm_holds(arm, measured):
    arm.moving()
    fault = time.time()
    arm.wrist.drop()
    stopped = arm.stops(fault)
    measured["stop_ms"] = 1e3 * (stopped.rest - fault)
    measured["caught_ms"] = arm.caught_ms(stopped, SETTINGS.latent_timeout)
    arm.says("world_model: inference: no frames received on wrist/frame", fault)
    arm.wrist.change = None
    arm.resumes(time.time())

"""A recording that is played to the graph: messages, /clock, services and its end."""

import signal

import pytest
from jepa_msgs.action import ReachGoal
from jepa_msgs.msg import GateStatus, LatentState, PlannerStatus
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger

from jepa_ros.bags.reader import open_bag
from jepa_ros.bringup.nodes import ReplayArguments, node_list
from jepa_ros.graph_clients.goal_client import GoalClient, pose_term
from jepa_ros.nodes.common.convert import to_ns


@pytest.fixture(scope="module")
def bag(tmp_path_factory):

    from jepa_ros.collecting.simulated import collect_simulated

    out = tmp_path_factory.mktemp("bags") / "play"
    assert collect_simulated(out=out, episodes=2, seed=7, width=96, height=96, workers=1) == 0
    return out


COMMANDS = "/right_joint_trajectory_controller/joint_trajectory"


@pytest.fixture(scope="module")
def stamps(bag):
    """ns, of the images in the bag."""
    with open_bag(bag) as source:
        [images] = [(t.topic, t.msgtype) for t in source.topics if t.msgtype.endswith("CompressedImage")]
        return [m.recorded for m in source.messages([images])]


@pytest.fixture(scope="module")
def replay(start, client, bag, tmp_path_factory):
    """All nodes of `jepa_ros up replay`, with a recording that restarts at its end."""
    arguments = ReplayArguments(bag=str(bag), loop=True, record="")
    nodes = {}
    for spec in node_list("replay", arguments):
        nodes[spec.name] = start(f"jepa_ros.nodes.{spec.name}", dict(spec.parameters), dict(spec.remappings))
    for node in nodes.values():
        node.says("active", 120.0)
    return nodes


@pytest.fixture(scope="module")
def latents(client, replay):
    found = client.collect(LatentState, "latent", 50)
    client.wait_for(lambda: len(found) > 10, "latents", 60.0)
    return found


@pytest.mark.smoke
def test_latents_have_the_stamps_of_the_recorded_images(latents, stamps):
    assert {to_ns(m.header.stamp) for m in latents} <= set(stamps)


@pytest.mark.smoke
def test_the_clock_is_that_of_the_recording(client, replay, stamps):
    clock = client.collect(Clock, "/clock", 50)
    client.wait_for(lambda: len(clock) > 20, "the clock")
    assert all(stamps[0] - 10**9 <= to_ns(m.clock) <= stamps[-1] + 2 * 10**9 for m in clock)


def test_in_shadow_mode_a_plan_is_followed_and_no_command_is_published(client, replay, latents):
    gate, planner = client.collect(GateStatus, "gate_status"), client.collect(PlannerStatus, "planner_status")
    goals = GoalClient(client.node)
    client.wait_for(goals.is_ready, "the planner", 60.0)
    request = goals.send(ReachGoal.Goal(terms=[pose_term((0.20, -0.30, 0.455), "world")], timeout=60.0))
    client.wait_for(lambda: any(m.state == GateStatus.TRACKING for m in gate), "a gate that follows", 60.0)
    client.wait_for(lambda: any(m.state == PlannerStatus.PLANNING for m in planner), "a planner that plans", 60.0)
    assert client.node.count_publishers(COMMANDS) == 0
    request.cancel()
    client.wait_for(lambda: request.outcome, "the end of the goal")


def test_a_recording_can_be_paused_and_resumed(client, replay, latents):
    assert client.call(Trigger, "player/pause", Trigger.Request(), again=5.0).success
    client.spin(1.0)
    count = len(latents)
    client.spin(0.6)
    assert len(latents) == count
    assert client.call(Trigger, "player/resume", Trigger.Request(), again=5.0).success
    client.wait_for(lambda: len(latents) > count + 5, "latents after the pause")


def test_rewinding_starts_a_new_episode_in_every_node(client, replay, latents, stamps):
    client.wait_for(lambda: to_ns(latents[-1].header.stamp) > stamps[20], "the recording to be under way")
    seen = len(latents)
    assert client.call(Trigger, "player/rewind", Trigger.Request(), again=5.0).success
    client.wait_for(lambda: len(latents) > seen + 10, "latents after the rewind")
    again = [to_ns(m.header.stamp) for m in latents[seen:]]
    assert min(again) <= stamps[2] and sorted(again[-8:]) == again[-8:]
    assert all(node.process.poll() is None for node in replay.values())


def test_the_player_ends_with_the_recording_and_the_results_are_readable(start, client, replay, bag, stamps, tmp_path):
    """With a second graph beside the first one, in a namespace of its own."""
    for node in replay.values():
        node.signal(signal.SIGTERM)
    nodes = {}
    arguments = ReplayArguments(bag=str(bag), rate=2.0, record=str(tmp_path / "results"), namespace="second")
    for spec in node_list("replay", arguments):
        remaps = {"__ns": spec.namespace} | dict(spec.remappings)
        nodes[spec.name] = start(f"jepa_ros.nodes.{spec.name}", dict(spec.parameters), remaps)
    assert nodes["player"].wait(120.0) == 0, nodes["player"].output
    nodes["recorder"].signal(signal.SIGTERM)
    assert nodes["recorder"].wait() == 0, nodes["recorder"].output
    with open_bag(tmp_path / "results") as source:
        counts = {t.topic: t.count for t in source.topics}
    assert counts["/second/latent"] >= len(stamps) - 5 and counts["/second/surprise"] > 5
    assert "/second/image/compressed" not in counts and "/second/plan" in counts


def test_a_bag_without_images_is_refused_in_one_line_with_its_topics(start, tmp_path):
    from jepa_ros.bags.typestore import typestore
    from jepa_ros.bags.writer import LiveBag

    bag = LiveBag(tmp_path / "bag", 1e9, {})
    bag.add_topic("/words", "std_msgs/msg/String", False)
    words = typestore().types["std_msgs/msg/String"](data="x")
    bag.write("/words", bytes(typestore().serialize_cdr(words, "std_msgs/msg/String")), 10**18, 10**18)
    bag.close()
    player = start("jepa_ros.nodes.player", {"bag": tmp_path / "bag"})
    assert player.wait(30.0) == 2
    assert "expected images on /image or /image/compressed, found /words (std_msgs/msg/String, 1)" in player.output

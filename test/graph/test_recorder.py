"""The recorder's bag: its contents, and what is left of it however the recording ends."""

import signal
import time
from collections import Counter

import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from jepa_msgs.msg import Action, GateStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from helpers.untrained_model import fresh_model
from jepa_ros.bags.reader import open_bag
from jepa_ros.bags.typestore import typestore
from jepa_ros.nodes.common.convert import image_message, to_stamp
from jepa_ros.nodes.common.qos import LATCHED


class Peers:
    """Publishes what a camera and a robot would, and nothing else."""

    def __init__(self, client):
        latched = LATCHED
        make = client.node.create_publisher
        self.image, self.joints = make(Image, "image", 50), make(JointState, "joint_states", 50)
        self.executed, self.gate = make(Action, "executed", 50), make(GateStatus, "gate_status", 10)
        make(String, "robot_description", latched).publish(String(data="<robot/>"))
        self._client, self._k, self._kept = client, 0, {}
        client.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_diagnostics(self, message):
        for status in message.status:
            if status.name == "recorder: recording":
                self._kept = {v.key: v.value for v in status.values}

    def kept(self, bag, count):
        """Until the recorder has written so many messages, counting all topics, to this bag."""
        there = lambda: self._kept.get("bag") == str(bag) and int(self._kept["messages"]) >= count  # noqa: E731
        self._client.wait_for(there, f"{count} messages in {bag}")

    def heard(self):
        self._client.wait_for(lambda: self.image.get_subscription_count() > 0, "the recorder to hear images")
        self._client.wait_for(lambda: self.gate.get_subscription_count() > 0, "the recorder to hear the gate")
        self._client.wait_for(lambda: self.executed.get_subscription_count() > 0, "the recorder to hear actions")
        self._client.wait_for(lambda: self.joints.get_subscription_count() > 0, "the recorder to hear joint states")

    def say(self, count: int, side: int = 32):
        rng = np.random.default_rng(0)
        for _ in range(count):
            self._k += 1
            stamp = to_stamp(self._k * 10**8)
            noise = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            self.image.publish(image_message(noise, stamp, "camera"))
            joints = JointState(name=["a"], position=[float(self._k)])
            joints.header.stamp = stamp
            self.joints.publish(joints)
            self.executed.publish(Action(plan_id=self._k))
            self._client.spin(0.01)


@pytest.fixture(scope="module")
def peers(client):
    return Peers(client)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return fresh_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def record(start, client, model, peers, tmp_path):
    def _record(**parameters):
        process = start("jepa_ros.nodes.recorder", {"model": model, "out": tmp_path / "bag", **parameters})
        process.says("active")
        peers.heard()
        return process

    return _record


def manage(client, number, state):
    """A lifecycle transition, asked for until it is done: what is asked of one that was killed a moment ago is lost."""
    manager = client.node.create_client(ChangeState, "recorder/change_state")
    client.wait_for(manager.service_is_ready, "the recorder's lifecycle")
    asked = 0.0

    def done():
        nonlocal asked
        if time.monotonic() - asked > 3.0:
            asked = time.monotonic()
            manager.call_async(ChangeState.Request(transition=Transition(id=number)))
        return client.state("recorder") == state

    client.wait_for(done, f"a recorder that is {state}")
    client.node.destroy_client(manager)


def counts(bag) -> Counter:
    with open_bag(bag) as source:
        wanted = [(t.topic, t.msgtype) for t in source.topics]
        return Counter(m.topic for m in source.messages(wanted))


@pytest.mark.smoke
def test_the_bag_has_all_messages_the_model_the_robot_and_the_version(record, peers, client, tmp_path):
    process = record(task="stacking")
    assert client.call(Trigger, "recorder/episode", Trigger.Request(), again=5.0).success
    peers.say(20)
    peers.kept(tmp_path / "bag", 60)
    process.signal(signal.SIGTERM)
    assert process.wait() == 0, process.output
    found = counts(tmp_path / "bag")
    assert found["/image"] == found["/joint_states"] == found["/executed"] == 20
    assert found["/robot_description"] == found["/episode"] == 1 and found["/diagnostics"] >= 1
    info = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert info["message_count"] == sum(found.values())
    assert info["custom_data"]["robot"] == "openarm" and len(info["custom_data"]["model_id"]) == 16
    assert info["custom_data"]["task"] == "stacking" and info["custom_data"]["jepa_ros"]


def test_long_recordings_are_split_into_files_of_one_bag(record, peers, tmp_path):
    process = record(split_mb=1.0)
    peers.say(12, side=256)
    peers.kept(tmp_path / "bag", 36)
    process.signal(signal.SIGINT)
    assert process.wait() == 0, process.output
    files = sorted(p.name for p in (tmp_path / "bag").glob("*.mcap"))
    assert len(files) >= 2 and files[:2] == ["bag_0.mcap", "bag_1.mcap"]
    assert counts(tmp_path / "bag")["/image"] == 12


def test_the_recorder_does_not_overwrite(record, peers, tmp_path):
    (tmp_path / "bag").mkdir()
    process = record()
    peers.say(1)
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert f"recording to {tmp_path / 'bag-2'}" in process.output and not list((tmp_path / "bag").iterdir())


def test_recording_can_be_stopped_and_restarted_in_one_process(record, peers, client, tmp_path):
    process = record()
    for number, state in ((4, "inactive"), (2, "unconfigured")):
        manage(client, number, state)
    peers.say(3)
    for number, state in ((1, "inactive"), (3, "active")):
        manage(client, number, state)
    peers.heard()
    peers.say(4)
    peers.kept(tmp_path / "bag-2", 12)
    process.signal(signal.SIGTERM)
    assert process.wait() == 0, process.output
    assert counts(tmp_path / "bag")["/image"] == 0 and counts(tmp_path / "bag-2")["/image"] == 4


def test_an_unwritable_directory_is_refused_in_one_line(start, model):
    process = start("jepa_ros.nodes.recorder", {"model": model, "out": "/proc/nowhere"})
    process.says("bag /proc/nowhere: expected a new directory, found no such file or directory")
    process.signal(signal.SIGTERM)
    process.wait()


def test_servo_joint_velocities_are_in_the_bag(record, peers, client, tmp_path):
    messages = pytest.importorskip("control_msgs.msg", reason="control_msgs is not installed")
    process = record(robot="ur5e", command_interface="servo_joint_jog")
    publisher = client.node.create_publisher(messages.JointJog, "servo_node/delta_joint_cmds", 10)
    client.wait_for(publisher.get_subscription_count, "the recorder to hear the commands")
    for k in range(5):
        publisher.publish(messages.JointJog(joint_names=["elbow_joint"], velocities=[0.1 * k]))
    peers.kept(tmp_path / "bag", 5)
    process.signal(signal.SIGTERM)
    assert process.wait() == 0, process.output
    with open_bag(tmp_path / "bag") as source:
        found = list(source.messages([("/servo_node/delta_joint_cmds", "control_msgs/msg/JointJog")]))
    said = [typestore().deserialize_cdr(m.data, m.msgtype) for m in found]
    assert [list(m.velocities) for m in said] == [[0.1 * k] for k in range(5)]
    assert said[0].joint_names == ["elbow_joint"]
    client.node.destroy_publisher(publisher)


# Last, as discovery goes on to announce who was killed.
def test_a_kill_loses_at_most_the_last_second(record, peers, client, tmp_path):
    process = record()
    peers.say(50)
    peers.kept(tmp_path / "bag", 150)
    client.spin(1.2)  # longer than messages wait in memory
    process.signal(signal.SIGKILL)
    process.wait()
    assert counts(tmp_path / "bag")["/image"] == 50

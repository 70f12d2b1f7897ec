"""Recordings with former definitions of our messages: each is read with the definition that lies in the bag."""

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from jepa_ros.bags.reader import open_bag
from jepa_ros.bags.recovery import recover_messages
from jepa_ros.bags.typestore import recorded_types, typestore

GATE, PLANNER = "jepa_msgs/msg/GateStatus", "jepa_msgs/msg/PlannerStatus"
FORMER = {
    GATE: """
uint8 LATCHED=4    # stopped until the service `release` is called

std_msgs/Header header      # stamp: now; frame: base frame of the robot
uint8 state                 # one of the constants above
string text                 # one sentence for a person: why this state
float32 speed_scale         # 0 to 1, ceiling on the speed of motion
float32 latent_age_ms       # ms, age of the newest latent; NaN = none yet
float32 plan_age_ms         # ms, age of the frame that the followed plan was made from; NaN = no plan
float32 joint_age_ms        # ms, age of the newest joint states; NaN = none yet
float32 following_error     # rad, largest joint distance between reference and measured position; NaN = unknown
float32 min_distance        # m, smallest distance to an obstacle or another link; NaN = not checked
uint32 clipped              # references that had to be cut to keep a limit, since activation
uint32 rejected             # plans refused, since activation
uint32 stops                # stops begun, since activation
uint64 plan_id              # plan that is followed; 0 = none
""",
    PLANNER: """
uint8 FAILED=5     # the last goal was aborted (text says why)

std_msgs/Header header       # stamp: now; frame: base frame of the robot
uint8 state                  # one of the constants above
string text                  # one sentence for a person
uint64 plan_id               # last plan published; 0 = none
float32 plan_ms              # ms, time from the start of the search to the plan's publication
float32 deadline_ms          # ms, time allowed from the frame's stamp to the plan's publication
float32 slack_ms             # ms, deadline minus time taken; negative = missed
float32 plan_age_ms          # ms, age of the frame planned from when the plan takes effect
float32 splice_error         # rad, largest joint distance between the plan's first point and the reference it continues
float32 distance             # latent distance to the goal now, no unit
float32 predicted_distance   # latent distance to the goal at the end of the plan, no unit
uint32 iterations            # full search iterations of the last plan
uint32 samples               # action sequences imagined for the last plan
uint32 misses                # deadline misses since activation
uint32 infeasible            # plans thrown away because no trajectory within limits existed, since activation
""",
}
KINDS = {"/gate_status": GATE, "/planner_status": PLANNER}


@pytest.fixture(scope="module")
def former():
    store = get_typestore(Stores.ROS2_JAZZY)
    for kind, text in FORMER.items():
        store.register(get_types_from_msg(text, kind))
    return store


def make(store, kind, number):
    """A message whose fields have different values."""
    fields = {}
    for k, (name, (_, described)) in enumerate(store.fielddefs[kind][1]):
        if name == "header":
            time = store.types["builtin_interfaces/msg/Time"](sec=number, nanosec=5)
            fields[name] = store.types["std_msgs/msg/Header"](stamp=time, frame_id="world")
        elif described[0] == "string":
            fields[name] = f"why {number}"
        else:
            fields[name] = k + 0.25 if described[0].startswith("float") else k + number
    return store.types[kind](**fields)


@pytest.fixture(scope="module", params=[StoragePlugin.MCAP, StoragePlugin.SQLITE3], ids=["mcap", "sqlite3"])
def bag(request, former, tmp_path_factory):
    path = tmp_path_factory.mktemp("former") / "bag"
    with Writer(path, version=9, storage_plugin=request.param) as writer:
        for topic, kind in KINDS.items():
            connection = writer.add_connection(topic, kind, typestore=former)
            for number in range(3):
                data = former.serialize_cdr(make(former, kind, number), kind)
                writer.write(connection, 10**18 + number, data)
    return path


def expect_former(messages, store):
    found = sorted(messages, key=lambda raw: (raw.topic, raw.recorded))
    assert [raw.msgtype for raw in found] == [GATE] * 3 + [PLANNER] * 3
    for raw in found:
        number, read = raw.recorded - 10**18, raw.deserialise()
        wanted = make(store, raw.msgtype, number)
        for name, _ in store.fielddefs[raw.msgtype][1]:
            if name != "header":
                assert getattr(read, name) == getattr(wanted, name), name
        assert read.header.stamp.sec == number and not hasattr(read, "code")


def test_a_bag_is_read_with_its_own_message_definitions(bag, former):
    with open_bag(bag, strict=True) as opened:
        expect_former(opened.messages(opened.topics), former)


def test_messages_recovered_without_an_index_use_the_definitions_in_the_bag(bag, former):
    [file] = [path for path in bag.iterdir() if path.suffix in (".mcap", ".db3")]
    expect_former(recover_messages(file), former)


def test_a_bag_with_current_definitions_is_read_with_the_current_types(tmp_path):
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/gate_status", GATE, typestore=typestore())
        writer.write(connection, 10**18, typestore().serialize_cdr(make(typestore(), GATE, 1), GATE))
    with open_bag(tmp_path / "bag", strict=True) as opened:
        [raw] = opened.messages(opened.topics)
        assert recorded_types(raw.msgtype, raw.definition) is typestore()
        assert np.isfinite(raw.deserialise().code)


@pytest.mark.parametrize(
    "definition",
    ["", "]]] {", "uint8 state\n" * 20_000, "uint8 st-ate"],
    ids=["empty", "garbage", "long", "invalid field name"],
)
def test_a_malformed_message_definition_is_ignored(definition):
    assert recorded_types(GATE, definition) is typestore()


def test_only_jepa_msgs_types_use_the_definitions_in_the_bag():
    assert recorded_types("std_msgs/msg/String", "uint8 data") is typestore()

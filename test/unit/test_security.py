"""The SROS2 policy: its format and permissions; test/faults compares the shipped one with the running graph."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from helpers.policy_reader import PolicyError, differences, from_xml
from jepa_ros.bringup.nodes import NODES
from jepa_ros.errors import InputError
from jepa_ros.resources import config_path
from jepa_ros.robot.config import load_robot
from jepa_ros.security.policy import TOOLS, Endpoints, check_commanders, operator_enclave, to_xml

GATE = Endpoints(
    "arm_gate",
    "/cell",
    subscribe={"/cell/plan", "/clock"},
    publish={"/cell/arm/joint_trajectory", "/diagnostics"},
    reply={"/cell/arm_gate/get_state", "/cell/stop"},
)
PLANNER = Endpoints("planner", "/cell", publish={"/cell/plan"}, execute={"/cell/reach_goal"})


@pytest.fixture(scope="module")
def shipped() -> dict[str, Endpoints]:
    return {node.name: node for node in from_xml(config_path("security/sim.policy.xml").read_text())}


def test_a_written_policy_reads_back_the_same():
    nodes = [PLANNER, GATE, operator_enclave([GATE, PLANNER], "/cell")]
    text = to_xml(nodes, "a note")
    assert differences(nodes, from_xml(text)) == []
    assert to_xml(nodes[::-1], "a note") == text
    assert [node.name for node in from_xml(text)] == ["arm_gate", "planner", "operator"]


def test_policy_names_are_written_in_the_sros2_format():
    [enclave] = ET.fromstring(to_xml([GATE])).iter("enclave")
    profile = enclave.find("profiles/profile")
    assert enclave.get("path") == "/cell/arm_gate" and profile.attrib == {"ns": "/cell", "node": "arm_gate"}
    assert [s.text for s in profile.find("services[@reply='ALLOW']")] == ["stop", "~/get_state"]
    assert [t.text for t in profile.find("topics[@publish='ALLOW']")] == ["/diagnostics", "arm/joint_trajectory"]


def test_an_operator_may_call_services_and_stop_but_not_move():
    who = operator_enclave([GATE, PLANNER], "/cell")
    assert who.call == {"/cell/reach_goal"} and "/cell/stop" in who.request and "/cell/plan" in who.subscribe
    assert who.publish == {"/cell/e_stop", "/rosout", "/parameter_events"}


@pytest.mark.parametrize(
    "nodes", [[GATE, Endpoints("planner", "/cell", publish={"/cell/arm/joint_trajectory"})], [PLANNER]]
)
def test_a_second_commander_or_no_commander_is_refused(nodes):
    check_commanders([GATE, PLANNER], ["/cell/arm/joint_trajectory"])
    with pytest.raises(InputError, match="/cell/arm/joint_trajectory: only arm_gate may publish it"):
        check_commanders(nodes, ["/cell/arm/joint_trajectory"])


@pytest.mark.parametrize(
    "old, new, words",
    [
        ('version="0.2.0"', 'version="0.1.0"', "must be a <policy version='0.2.0'>"),
        ("enclaves>", "contexts>", "must have one <enclaves>"),
        ('path="/cell/arm_gate"', 'path="/cell/planner"', "has the profile of another node"),
        ('reply="ALLOW"', 'reply="PERHAPS"', r"allowed are \['reply', 'request'\] ALLOW"),
        ('reply="ALLOW"', 'publish="ALLOW"', r"allowed are \['reply', 'request'\] ALLOW"),
        ("<service>stop</service>", "<service></service>", "<service> is empty"),
        ("<service>stop</service>", "<topic>stop</topic>", "must have <service>"),
        ("</policy>", "", "not valid XML"),
    ],
)
def test_an_invalid_policy_is_refused(old, new, words):
    text = to_xml([GATE])
    assert old in text
    with pytest.raises(PolicyError, match=words):
        from_xml(text.replace(old, new))


def test_the_shipped_policy_lets_only_arm_gate_command_the_controllers(shipped):
    commands = [f"/{controller.command_topic}" for controller in load_robot("openarm").controllers]
    assert set(shipped) == {*NODES["sim"], "recorder", "collect", "operator"}
    check_commanders(shipped.values(), commands)
    makers = (("/plan", {"planner", "collect"}), ("/latent", {"world_model"}), ("/frame", {"camera"}))
    for topic, who in makers:
        assert {node.name for node in shipped.values() if topic in node.publish} == who
    assert [node.name for node in shipped.values() if "/joint_states" in node.publish] == ["simulator"]


def test_the_shipped_policy_allows_the_standard_rclpy_interfaces(shipped):
    parameters = ("describe", "get", "list", "set")
    for node in (node for name, node in shipped.items() if name not in TOOLS):
        assert {"/rosout", "/parameter_events", "/diagnostics", f"/{node.name}/transition_event"} <= node.publish
        assert {f"/{node.name}/{verb}_parameters" for verb in parameters} <= node.reply
        assert {f"/{node.name}/{service}" for service in ("change_state", "get_state")} <= node.reply
        assert "/clock" in node.subscribe and not node.request and not node.call
    assert shipped["planner"].execute == shipped["operator"].call == {"/reach_goal"}
    assert {"/stop", "/release"} <= shipped["arm_gate"].reply

"""Robot files: drafted from a URDF, and checked problem by problem."""

import re

import pytest
import yaml
from typer.testing import CliRunner

from helpers.vendor_arms import published
from jepa_ros import cli
from jepa_ros.errors import InputError
from jepa_ros.resources import resolve_robot
from jepa_ros.robot.config import load_robot
from jepa_ros.robot.files.check import find_problems
from jepa_ros.robot.files.draft import draft_robot_yaml
from jepa_ros.robot.files.kinematic_tree import KinematicTree

ARMS = {"franka_fr3": None, "ur5e": None, "kinova_gen3": None, "openarm_v10": "openarm_right_hand_tcp"}


def command(*words):
    return CliRunner().invoke(cli.app, ["robot", *map(str, words)])


@pytest.fixture
def files(tmp_path):
    """files(robot) -> the paths of its URDF, and of the draft made from it by the command."""

    def made(robot, *options):
        urdf, out = tmp_path / "robot.urdf", tmp_path / "new.yaml"
        urdf.write_text(published(robot))
        done = command("new", "--urdf", urdf, "--name", "mine", "--out", out, *options)
        assert done.exit_code == 0, done.output
        return urdf, out

    return made


def finished(out):
    """Delete all TODOs, as a user who agrees with every guess."""
    out.write_text(re.sub("# TODO.*", "", out.read_text()))
    return out


@pytest.mark.parametrize("robot", ARMS)
def test_a_draft_lists_the_joints_and_passes_the_check_once_its_todos_are_done(robot, files):
    tool = ARMS[robot]
    urdf, out = files(robot, *(("--tool", tool) if tool else ()))
    shipped, drafted = load_robot(robot), load_robot(out)
    assert drafted.joints == shipped.joints and drafted.tool_frame == shipped.tool_frame
    assert drafted.gripper == shipped.gripper and drafted.name == "mine"
    refused = command("check", out, "--urdf", urdf)
    assert refused.exit_code == 1 and refused.output.count("open TODO") == 4, refused.output
    done = command("check", finished(out), "--urdf", urdf)
    assert done.exit_code == 0 and "no problems" in done.output, done.output


def test_a_velocity_missing_in_the_urdf_is_a_todo():
    text = draft_robot_yaml(published("ur5e").replace('velocity="3.141593"', "", 1))
    assert "shoulder_pan_joint:  # TODO max_velocity: not in the URDF" in text


def test_with_two_arms_of_equal_length_one_must_be_chosen(tmp_path):
    with pytest.raises(InputError, match="expected one longest chain, or --tool; found the ends .*left.*right"):
        draft_robot_yaml(published("openarm_v10"))
    assert KinematicTree(published("openarm_v10")).arm(tool="openarm_left_hand_tcp").joints[0] == "openarm_left_joint1"


def test_the_arm_begins_at_a_given_base():
    arm = KinematicTree(published("ur5e")).arm(base="shoulder_link")
    assert arm.joints[0] == "shoulder_lift_joint" and arm.tool == "tool0"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["new", "--urdf", "missing.urdf"], "--urdf missing.urdf: no such file"),
        (["check", "r2d2"], "ROBOT 'r2d2': expected a YAML file or one of"),
        (["check", "ur5e", "--urdf", "missing.urdf"], "--urdf missing.urdf: no such file"),
    ],
)
def test_unreadable_input_is_exit_code_2_and_one_line(words, complaint):
    done = command(*words)
    assert done.exit_code == 2 and complaint in done.output and len(done.output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<robot xmlns:xacro='x'><xacro:include filename='a'/></robot>", "expected a URDF, found xacro"),
        ("<robot name='a'/>", "expected joints, found none"),
        ("no xml", "expected URDF, found invalid XML"),
    ],
)
def test_an_invalid_description_is_refused(tmp_path, text, complaint):
    urdf = tmp_path / "robot.urdf"
    urdf.write_text(text)
    done = command("new", "--urdf", urdf, "--out", tmp_path / "new.yaml")
    assert done.exit_code == 2 and complaint in done.output and not (tmp_path / "new.yaml").exists()


def test_an_existing_file_is_not_overwritten(files, tmp_path):
    urdf, out = files("ur5e")
    before = out.read_text()
    assert command("new", "--urdf", urdf, "--out", out).exit_code == 2 and out.read_text() == before


def changed(tmp_path, change):
    """The problems of ur5e.yaml after change(its content)."""
    keys = yaml.safe_load(resolve_robot("ur5e").read_text())
    change(keys)
    path = tmp_path / "arm.yaml"
    path.write_text(yaml.safe_dump(keys))
    return find_problems(path, published("ur5e"))


def _degrees(k):
    k["home"]["elbow_joint"] = 90.0


def _no_acceleration(k):
    del k["joint_limits"]["elbow_joint"]["max_acceleration"]


def _no_jerk(k):
    k["joint_limits"]["elbow_joint"]["has_jerk_limits"] = False


def _order(k):
    k["joints"][:2] = k["joints"][1::-1]


def _frame(k):
    k["tool_frame"] = "hand"


def _reach(k):
    k["action_space"]["workspace"] = [[0.4, -0.1], [1.6, -0.1], [1.6, 0.3], [0.4, 0.3]]


def _reach_in_space(k):
    k["action_space"] = {"type": "pose_delta", "max_translation": 0.01, "max_rotation": 0.05, "max_acceleration": 0.5}
    k["action_space"]["workspace"] = [[0.44, -0.1, 0.3], [1.6, 0.3, 0.4]]


def _home(k):
    k["home"]["elbow_joint"] = 3.13


def _gripper(k):
    k["gripper"] = ["thumb"]


def _other_name(k):
    text = yaml.safe_dump(k).replace("wrist_3_joint", "wrist_4_joint")
    k.update(yaml.safe_load(text))


def _margin(k):
    k["joint_limits"]["elbow_joint"] |= {"min_position": 1.5, "max_position": 1.55}


def _speed(k):
    k["joint_limits"]["elbow_joint"]["max_velocity"] = 180.0


def _not_below(k):
    k["base_frame"], k["tool_frame"] = "forearm_link", "shoulder_link"


@pytest.mark.parametrize(
    ("change", "complaints"),
    [
        (
            _degrees,
            ["home of elbow_joint: expected rad, found 90: degrees?", "home of elbow_joint: expected -3.092 to"],
        ),
        (_no_acceleration, ["joint_limits of elbow_joint: expected has_acceleration_limits: true and max_accele"]),
        (_no_jerk, ["joint_limits of elbow_joint: expected has_jerk_limits: true and max_jerk, found none"]),
        (_order, ["joints: expected the order from base to tool ['shoulder_pan_joint', 'shoulder_lift_joint'"]),
        (_frame, ["tool_frame: expected a link of the URDF, found hand"]),
        (_reach, ["workspace: corner (1.6, -0.1, 0.3) m is out of reach by ", "workspace: corner"]),
        (_reach_in_space, ["workspace: corner (1.6, -0.1, 0.3) m is out of reach by "] + 3 * ["workspace: corner"]),
        (_home, ["home of elbow_joint: expected -3.092 to 3.092 (limits minus position_margin), found 3.13"]),
        (_gripper, ["gripper: expected a joint of the URDF, found thumb"]),
        (_other_name, ["joints: expected joints of the URDF, found wrist_4_joint"]),
        (_margin, ["joint elbow_joint: expected lower < upper"]),
        (_speed, ["joint_limits of elbow_joint: expected max_velocity in rad/s, found 180"]),
        (_not_below, ["robot description: expected link shoulder_link below forearm_link"]),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_every_problem_is_reported_in_one_line(tmp_path, change, complaints):
    found = changed(tmp_path, change)
    assert len(found) == len(complaints), found
    assert all(line.startswith(start) for line, start in zip(found, complaints, strict=True)), found


def test_limits_in_degrees_are_reported():
    urdf = published("ur5e").replace('lower="-3.141593" upper="3.141593"', 'lower="-180" upper="180"')
    [problem] = find_problems(resolve_robot("ur5e"), urdf)
    assert problem == "limits of elbow_joint in the URDF: expected rad, found -180 to 180: degrees?"


def test_an_arm_without_joint_limits_in_its_urdf_is_refused():
    urdf = published("ur5e").replace('lower="-3.141593" upper="3.141593"', "")
    [problem] = find_problems(resolve_robot("ur5e"), urdf)
    assert problem.startswith("joint elbow_joint: expected lower < upper")


def test_a_missing_joint_is_reported(tmp_path):
    def change(k):
        k["joints"].remove("wrist_3_joint")
        for key in ("home", "joint_limits"):
            del k[key]["wrist_3_joint"]
        for controller in k["controllers"]:
            controller["joints"] = k["joints"]

    assert changed(tmp_path, change) == ["joints: expected also wrist_3_joint, which moves from base_link to tool0"]


def test_all_invalid_fields_are_reported_at_once(tmp_path):
    def change(k):
        k["wings"] = 2
        del k["base_frame"]

    found = changed(tmp_path, change)
    assert found == ["base_frame: expected a value, found none", "wings: expected no such field, found one"]

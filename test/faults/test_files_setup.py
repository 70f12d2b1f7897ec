"""Rows 46 to 48: mirrored arms, robot files that are not finished, and questions that doctor gets no answer to."""

import numpy as np
import pytest
from typer.testing import CliRunner

from helpers import small_models
from helpers.doctor_cases import SETUP, bad, good
from helpers.vendor_arms import published
from jepa_ros import cli
from jepa_ros.doctor.examine import examine
from jepa_ros.doctor.finding import Level
from jepa_ros.robot.config import load_robot, read_robot
from jepa_ros.robot.files.check import check_gripper
from jepa_ros.robot.files.draft import draft_robot_yaml
from jepa_ros.robot.motion.kinematics import Kinematics

PAIRS = (("openarm_v10", "openarm_v10_left"), ("openarm_v2", "openarm_v2_left"))


@pytest.mark.fault(46)
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0])
def test_a_mirrored_pair_holds_its_tools_on_both_sides_and_opens_both_grippers(pair):
    tools = []
    for name in pair:
        robot = load_robot(name)
        urdf = published(name)
        assert check_gripper(read_robot(name), urdf) == []
        arm = Kinematics(urdf, robot.joints, robot.tool_frame, robot.base_frame)
        tools.append(arm.forward(np.array([robot.home[j] for j in robot.joints]))[0])
    np.testing.assert_allclose(tools[0] * [1, -1, 1], tools[1], atol=0.01)


@pytest.mark.fault(46)
def test_a_gripper_that_closes_when_it_should_open_is_a_problem():
    robot = read_robot("openarm_v2_left")
    other = {"lower": "upper", "upper": "lower"}[robot.gripper_controller.open]
    controller = robot.gripper_controller.model_copy(update={"open": other})
    [problem] = check_gripper(robot.model_copy(update={"gripper_controller": controller}), published("openarm_v2_left"))
    assert "brings the fingers together" in problem


def refused(*options):
    """The one line that `up robot` ends with."""
    done = CliRunner().invoke(cli.app, ["up", "robot", *options])
    assert done.exit_code == 2, done.output
    [line] = done.output.strip().splitlines()
    return line


@pytest.mark.fault(47)
def test_bring_up_with_open_marks_ends_with_one_line(tmp_path):
    drafted = tmp_path / "mine.yaml"
    drafted.write_text(draft_robot_yaml(published("ur5e"), "mine"))
    assert "open TODO" in refused("--robot", str(drafted))


@pytest.mark.fault(47)
def test_bring_up_with_a_model_of_another_robot_ends_with_one_line(tmp_path):
    config = small_models.config(load_robot("openarm").joints)
    (tmp_path / "config.json").write_text(config.model_dump_json())
    assert "expected a robot with action space" in refused("--robot", "ur5e", "--model", str(tmp_path))


@pytest.mark.fault(48)
@pytest.mark.parametrize(
    ("missing", "words"),
    [((), "whether controllers are active is not known"), (("controller_manager_msgs",), "found none here: not asked")],
    ids=["no answer", "no package"],
)
def test_doctor_without_an_answer_does_not_say_that_all_is_well(missing, words):
    observed = good()
    assert bad(observed) == []
    observed.controllers, observed.missing_state_packages = None, missing
    [line] = [f.line() for f in examine(observed, SETUP) if f.check == "answer" and f.level >= Level.WARNING]
    assert words in line

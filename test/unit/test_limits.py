"""Robot descriptions and joint limits."""

import math

import numpy as np
import pytest

from jepa_ros.errors import InputError
from jepa_ros.robot.config import load_robot
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.path import Path
from jepa_ros.robot.urdf import RobotDescription

URDF = """<robot name="arm"><link name="a"/><link name="b"/>
<joint name="turn" type="revolute"><parent link="a"/><child link="b"/><limit lower="-1" upper="2" velocity="3"/></joint>
<joint name="wheel" type="continuous"><limit velocity="3" effort="1"/></joint>
<joint name="slow" type="revolute"><limit lower="-1" upper="1" effort="1"/></joint>
<joint name="bolt" type="fixed"/></robot>"""
KEYS = {"max_acceleration": 5.0, "max_jerk": 50.0}


def limits(names=("turn",), margin=0.0, **keys):
    return JointLimits.from_description(
        RobotDescription.from_urdf(URDF), {n: KEYS | keys for n in names}, names, margin
    )


def test_joints_and_limits_are_read_from_a_urdf():
    joints = RobotDescription.from_urdf(URDF).joints
    assert (joints["turn"].lower, joints["turn"].upper, joints["turn"].velocity) == (-1.0, 2.0, 3.0)
    assert joints["wheel"].upper == math.inf and joints["slow"].velocity is None and joints["bolt"].type == "fixed"


@pytest.mark.parametrize(
    "xml, word",
    [
        ("", "XML"),
        ("<robot><joint", "XML"),
        ("<sdf/>", "<robot>"),
        ("<robot/>", "joints"),
        ('<robot><joint type="fixed"/></robot>', "name"),
        ('<robot><joint name="j" type="elbow"/></robot>', "elbow"),
        ('<robot><joint name="j" type="revolute"/></robot>', "limit"),
        ('<robot><joint name="j" type="revolute"><limit lower="1" upper="0"/></joint></robot>', "lower"),
        ('<robot><joint name="j" type="revolute"><limit lower="nan" upper="0"/></joint></robot>', "'nan'"),
        ('<robot><joint name="j" type="fixed"/><joint name="j" type="fixed"/></robot>', "twice"),
        ("<robot>" + "x" * 17_000_000 + "</robot>", "characters"),
        ("\0", "XML"),
    ],
)
def test_malformed_descriptions_are_refused_in_one_line(xml, word):
    with pytest.raises(InputError, match=word) as error:
        RobotDescription.from_urdf(xml)
    assert "\n" not in str(error.value)


def test_yaml_limits_narrow_and_never_widen_the_urdf_limits():
    wide = limits(max_velocity=99.0, min_position=-99.0, max_position=99.0)
    assert (wide.velocity[0], wide.lower[0], wide.upper[0]) == (3.0, -1.0, 2.0)
    narrow = limits(max_velocity=1.0, min_position=-0.5, max_position=0.5, margin=0.1)
    assert (narrow.velocity[0], narrow.lower[0], narrow.upper[0]) == (1.0, -0.4, 0.4)
    assert (narrow.acceleration[0], narrow.jerk[0]) == (5.0, 50.0)


@pytest.mark.parametrize(
    "names, keys, word",
    [
        (("turn",), {"max_acceleration": None}, "max_acceleration"),
        (("turn",), {"max_jerk": None}, "max_jerk"),
        (("turn",), {"has_jerk_limits": False}, "max_jerk"),
        (("turn",), {"max_jerk": "fast"}, "fast"),
        (("turn",), {"max_jerk": math.inf}, "max_jerk"),
        (("turn",), {"max_velocity": -1.0}, "velocity"),
        (("turn",), {"max_acceleration": 0.0}, "acceleration"),
        (("turn",), {"min_position": 1.9, "max_position": -0.9}, "lower < upper"),
        (("slow",), {}, "velocity limit"),
        (("elbow",), {}, "elbow"),
        (("bolt",), {}, "fixed"),
        (("turn", "turn"), {}, "duplicate"),
        ((), {}, "names"),
    ],
)
def test_missing_or_invalid_limits_are_refused(names, keys, word):
    with pytest.raises(InputError, match=word):
        limits(names, **keys)


def test_a_continuous_joint_has_no_position_limit():
    path = Path.rest(np.array([1e3]), 0.0)
    assert limits(("wheel",)).allows(path)
    assert not limits().scaled(0.5).velocity[0] > 1.5


def test_joints_without_position_limits_are_continuous():
    names = ("turn", "wheel")
    assert limits(names, margin=0.05).continuous.tolist() == [False, True]
    assert limits(names).scaled(0.5).continuous.tolist() == [False, True]
    assert not limits(("wheel",), min_position=-1.0, max_position=1.0).continuous.any()


def test_the_shipped_robot_has_all_limits():
    robot = load_robot("openarm")
    joints = "".join(
        f'<joint name="{j}" type="revolute"><limit lower="-1.5" upper="2.5" velocity="9"/></joint>'
        for j in robot.joints
    )
    made = JointLimits.from_description(
        RobotDescription.from_urdf(f"<robot>{joints}</robot>"), robot.joint_limits, robot.joints, robot.position_margin
    )
    assert made.names == tuple(robot.joints)
    np.testing.assert_allclose(made.upper, 2.5 - robot.position_margin)
    assert (made.velocity < 9).all() and np.isfinite(made.jerk).all()


def test_usage_describes_the_worst_violation():
    one = limits()
    rising = Path(np.array([0.0, 1.0]), np.array([[[0.0], [0.0], [0.0]], [[1.8], [0.0], [0.0]]]))
    use = one.compute_usage(rising)
    assert use.velocity == pytest.approx(1.875 * 1.8 / 3) and "jerk of turn" in use.text and not use.within_limits
    assert use.slowdown == pytest.approx(max(use.velocity, use.acceleration**0.5, use.jerk ** (1 / 3)))
    assert one.compute_usage(rising.slowed(use.slowdown)).within_limits
    out = Path(np.array([0.0, 5.0]), np.array([[[0.0], [0.0], [0.0]], [[2.25], [0.0], [0.0]]]))
    assert one.compute_usage(out).position == pytest.approx(0.25) and "position of turn" in one.compute_usage(out).text
    until = one.find_exit_time(out)
    assert out.at(until)[0, 0] <= 2.0 + 1e-5 and out.at(until + 0.02)[0, 0] > 2.0


def test_a_value_that_is_not_finite_violates_all_limits():
    bad = Path(np.array([0.0, 1.0]), np.array([[[0.0], [0.0], [0.0]], [[np.nan], [0.0], [0.0]]]))
    assert not limits().compute_usage(bad).within_limits

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from trajectory_msgs.msg import JointTrajectory as JointTrajectoryMessage
from trajectory_msgs.msg import JointTrajectoryPoint

from jepa_ros.errors import InputError
from jepa_ros.nodes.common import convert
from jepa_ros.robot.motion.trajectory import JointTrajectory


def test_time_conversions_are_exact_to_the_nanosecond():
    ns = 1_795_334_291_607_883_089
    assert convert.to_ns(convert.to_stamp(ns)) == ns
    assert convert.to_seconds(Time(sec=3, nanosec=500_000_000)) == 3.5
    assert convert.to_ns(convert.to_duration(0.05)) == 50_000_000
    assert convert.to_ns(convert.to_duration(1.9999999999)) == 2_000_000_000


def test_an_image_message_holds_the_image():
    rgb = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    message = convert.image_message(rgb, Time(sec=5), "eye")
    assert (message.width, message.height, message.step, message.header.frame_id) == (8, 6, 24, "eye")
    assert (convert.decode_image(message) == rgb).all()
    assert (convert.decode_image(convert.image_message(rgb[:, ::-1], Time(), "eye")) == rgb[:, ::-1]).all()


def test_array_fields_are_flattened_in_row_order():
    assert list(convert.float32_array(np.array([[1.0, 2.0], [3.0, 4.0]]).T)) == [1.0, 3.0, 2.0, 4.0]
    assert list(convert.float64_array(np.arange(3))) == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("derivatives", [0, 1, 2])
def test_a_trajectory_survives_conversion_to_a_message_and_back(derivatives):
    rng = np.random.default_rng(1)
    values = [rng.normal(size=(3, 2)) for _ in range(1 + derivatives)]
    trajectory = JointTrajectory(("a", "b"), np.array([0.05, 0.1, 1.0]), *values)
    back = convert.trajectory_of(convert.trajectory_message(trajectory, Time(sec=7)))
    assert back.names == trajectory.names and np.allclose(back.times, trajectory.times, atol=1e-9)
    for field in ("positions", "velocities", "accelerations")[: 1 + derivatives]:
        assert (getattr(back, field) == getattr(trajectory, field)).all()
    assert (back.accelerations is None) == (derivatives < 2)


@pytest.mark.parametrize(
    ("names", "points", "words"),
    [
        ([], [{}], "no joint names"),
        (["a"], [], "no points"),
        (["a"], [{}], "positions"),
        (["a", "b"], [{"positions": [1.0]}], "positions: expected 2"),
        (["a"], [{"positions": [1.0], "velocities": [1.0]}, {"positions": [1.0]}], "velocities"),
        (["a"], [{"positions": [float("nan")]}], "NaN"),
        (["a"], [{"positions": [1.0]}, {"positions": [1.0]}], "increasing"),
    ],
)
def test_an_invalid_trajectory_message_is_refused_in_one_line(names, points, words):
    message = JointTrajectoryMessage(joint_names=names, points=[JointTrajectoryPoint(**p) for p in points])
    with pytest.raises(InputError, match=words) as caught:
        convert.trajectory_of(message)
    assert "\n" not in str(caught.value)

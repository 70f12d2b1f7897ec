"""A robot as `jepa_ros doctor` sees it, with everything as it should be."""

from __future__ import annotations

import math

import numpy as np

from jepa_ros.doctor.examine import examine
from jepa_ros.doctor.finding import Level
from jepa_ros.doctor.observations import (
    CONTROLLER_STATE,
    IMAGES,
    JOINT_STATE,
    STRING,
    CameraObservations,
    Endpoint,
    Intrinsics,
    JointMessage,
    MessageTimes,
    NodeParameters,
    Observations,
    RobotSetup,
    Topic,
)
from jepa_ros.resources import resolve_model
from jepa_ros.robot.config import load_robot
from jepa_ros.world_model.config import read_config

ROBOT, MODEL = load_robot("openarm"), read_config(resolve_model("openarm_reach"))
SETUP = RobotSetup(ROBOT, MODEL)
CONTROLLER = ROBOT.controllers[0].name
COMMAND = f"/{ROBOT.controllers[0].command_topic}"
STATE = SETUP.state_topic(CONTROLLER)
MANAGER = "/controller_manager"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
NOW = 1.7e9  # s


def urdf(limit='lower="-2.5" upper="2.5" velocity="3" effort="1"', links=(ROBOT.base_frame, ROBOT.tool_frame)):
    names = [links[0], *(f"link{i}" for i in range(1, len(ROBOT.joints))), links[1]]
    inertia = '<inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'
    parts = [f'<link name="{name}">{inertia}</link>' for name in names]
    for i, joint in enumerate(ROBOT.joints):
        parts.append(
            f'<joint name="{joint}" type="revolute"><parent link="{names[i]}"/><child link="{names[i + 1]}"/>'
            f'<origin xyz="0 0 0.1"/><axis xyz="0 {i % 2} {1 - i % 2}"/><limit {limit}/></joint>'
        )
    return f'<robot name="arm">{"".join(parts)}</robot>'


def stream(rate, seconds=5.0, age=0.01, frame=""):
    made = MessageTimes()
    for k in range(int(rate * seconds)):
        made.add(NOW + k / rate, math.nan, NOW + k / rate - age, frame)
    return made


def joint_message(**changes):
    names = (*ROBOT.joints, *ROBOT.gripper)
    values = {j: changes.get(j, ROBOT.home.get(j, 0.0)) for j in names}
    return JointMessage(names, tuple(values.values()), (0.0,) * len(names))


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 255, (240, 320, 3), dtype=np.uint8)


def trajectory_parameters(**changes):
    """What a joint_trajectory_controller answers."""
    given = {"joints": [*ROBOT.joints], "command_interfaces": ["position"], "interpolation_method": "splines"}
    return NodeParameters(use_sim_time=False, **(given | changes))


def good() -> Observations:
    """A robot that is as it should be."""
    trained = MODEL.camera
    optics = Intrinsics(trained.width, trained.height, trained.fx, trained.fy, trained.cx, trained.cy)
    frame = ROBOT.camera.frame_id
    eye = CameraObservations("/image", stream(15, age=0.05, frame=frame), picture(), "", ["rgb8"], [(320, 240)], optics)
    return Observations(
        topics={
            "/joint_states": Topic([Endpoint("/driver", JOINT_STATE)], [Endpoint("/rsp", JOINT_STATE)]),
            "/robot_description": Topic([Endpoint("/rsp", STRING, True, True)]),
            "/image": Topic([Endpoint("/eye", IMAGES[0], False)]),
            COMMAND: Topic([], [Endpoint(f"/{CONTROLLER}", TRAJECTORY)]),
            STATE: Topic([Endpoint(f"/{CONTROLLER}", CONTROLLER_STATE)]),
            "/tf_static": Topic([Endpoint("/rsp", "tf2_msgs/msg/TFMessage", True, True)]),
        },
        nodes={
            "/driver": NodeParameters(use_sim_time=False),
            f"/{CONTROLLER}": trajectory_parameters(),
            MANAGER: NodeParameters(enforce_command_limits=False),
        },
        controllers={CONTROLLER: "active"},
        controller_manager=MANAGER,
        speed_scaling={CONTROLLER: 1.0},
        joints=stream(100),
        joint_messages=[joint_message()] * 500,
        description=urdf(),
        transforms={
            ROBOT.tool_frame: (ROBOT.base_frame, (0.1, 0, 0.4), (0, 0, 0, 1)),
            frame: (ROBOT.base_frame, trained.position, trained.orientation),
        },
        cameras=[eye],
    )


def bad(observed=None, setup=SETUP):
    return [f for f in examine(observed or good(), setup) if f.level]


def only(check, observed=None, setup=SETUP, level=Level.ERROR):
    """The one finding that is not OK."""
    found = bad(observed, setup)
    assert [(f.check, f.level) for f in found] == [(check, level)], [f.line() for f in found]
    return found[0].line()

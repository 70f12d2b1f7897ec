"""The made-up arm of the gate's tests, and plans for it."""

import numpy as np

from jepa_ros.robot.config import load_robot
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.trajectory import JointTrajectory

ROBOT = load_robot("openarm")
JOINTS = tuple(ROBOT.joints)
GOAL = np.array([0.3, 0.1, -0.2, 1.2, 0.2, -0.1, 0.3])
START = np.array([ROBOT.home[j] for j in JOINTS])


def urdf():
    links = [ROBOT.base_frame, *(f"link{i}" for i in range(1, len(JOINTS))), ROBOT.tool_frame]
    inertia = '<inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'
    parts = [f'<link name="{name}">{inertia}</link>' for name in links]
    for i, joint in enumerate(JOINTS):
        parts.append(
            f'<joint name="{joint}" type="revolute"><parent link="{links[i]}"/><child link="{links[i + 1]}"/>'
            f'<origin xyz="0 0 0.1"/><axis xyz="{"0 0 1" if i % 2 else "0 1 0"}"/>'
            '<limit lower="-2.5" upper="2.5" velocity="3" effort="1"/></joint>'
        )
    return f'<robot name="arm">{"".join(parts)}</robot>'


def minimum_jerk(start, goal, duration=1.2):
    t = np.arange(0.0, duration + 0.025, 0.05)
    u, way = t / t[-1], np.subtract(goal, start)
    f, fd, fdd = 10 * u**3 - 15 * u**4 + 6 * u**5, 30 * u**2 - 60 * u**3 + 30 * u**4, 60 * u - 180 * u**2 + 120 * u**3
    rows = np.outer(f, way) + start, np.outer(fd, way) / t[-1], np.outer(fdd, way) / t[-1] ** 2
    return JointTrajectory(JOINTS, t, *rows)


def straight(duration=1.6, speed=0.12):
    """A joint path as MoveIt Servo makes one: the tool goes straight, the joints by the pseudo-inverse."""
    kinematics = Kinematics(urdf(), JOINTS, ROBOT.tool_frame, ROBOT.base_frame)
    times, q, knots = np.arange(0.0, duration + 0.001, 0.002), START.copy(), []
    for t in times:
        u = t / duration
        rate = speed * 30 * (u**2 - 2 * u**3 + u**4)
        qd = np.linalg.pinv(kinematics.jacobian(q), rcond=1e-3) @ np.array([0.3, 0.0, 1.0, 0, 0, 0]) * rate
        knots.append((q.copy(), qd))
        q = q + 0.002 * qd
    positions, velocities = (np.array(x) for x in zip(*knots, strict=True))
    accelerations = np.gradient(velocities, times, axis=0)
    velocities[[0, -1]] = accelerations[[0, -1]] = 0.0
    keep = slice(None, None, 25)
    return JointTrajectory(JOINTS, times[keep], positions[keep], velocities[keep], accelerations[keep])

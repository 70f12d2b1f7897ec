"""A small bag of the simulated arm as `jepa_ros collect sim` writes it; a bright square stands for the hand."""

import numpy as np

from helpers import sim_arm
from jepa_ros.bags.writer import EpisodeWriter

FIRST, PERIOD, SPEED = 1_700_000_000 * 10**9, 0.1, 0.2
SPLITS = ("train",) * 4 + ("val", "test")
INTRINSICS = {"width": 64, "height": 64, "fx": 60.0, "fy": 60.0, "cx": 31.5, "cy": 31.5}


def picture(xy):
    """(64, 64, 3): the workspace from above, 1 cm a pixel."""
    frame = np.zeros((64, 64, 3), np.uint8)
    x, y = (100 * (np.asarray(xy) - (-0.05, -0.55))).round().astype(int)
    frame[max(x - 3, 0) : x + 3, max(y - 3, 0) : y + 3] = 255
    return frame


def write(path, ticks=24, seed=0, spoil=lambda episode, tick, joints, action: (joints, action)):
    """An episode a split of SPLITS, the tool wandering around; `spoil` may change what is written."""
    robot, space, rng = sim_arm.robot(), sim_arm.space(), np.random.default_rng(seed)
    names = (*robot.joints, *robot.gripper)
    with EpisodeWriter(path, "tablecam_optical_frame", "world") as bag:
        bag.robot_description(FIRST, sim_arm.scene().urdf)
        for number, split in enumerate(SPLITS):
            start, xy = FIRST + number * 60 * 10**9, np.array([0.18, -0.3])
            bag.episode(start, number, split, "play")
            bag.camera_info(start, INTRINSICS)
            for tick in range(ticks + 1):
                t = start + round(tick * PERIOD * 1e9)
                if tick % 4 == 0:
                    action = rng.uniform(-0.8, 0.8, 2)
                after = np.clip(xy + action * SPEED * PERIOD, (0.14, -0.36), (0.24, -0.22))
                q = space.inverse_kinematics(xy)
                moved = (after - xy) / (SPEED * PERIOD)
                q, moved = spoil(number, tick, np.append(q, np.zeros(len(robot.gripper))), moved)
                bag.image(t, picture(xy))
                bag.joint_state(t, names, q, 0 * q, 0 * q)
                if tick < ticks:
                    bag.executed(t, t + round(PERIOD * 1e9), PERIOD, "planar_velocity", moved, 1)
                xy = after
    return path

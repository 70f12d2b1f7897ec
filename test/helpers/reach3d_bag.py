"""A small bag of the simulated arm whose tool moves in space and turns; the images show nothing but a square."""

import numpy as np

from helpers import reach_bag, sim_arm
from jepa_ros.bags.writer import EpisodeWriter

PERIOD = reach_bag.PERIOD


def write(path, ticks=24, seed=0):
    """An episode for each of reach_bag.SPLITS, of random play that the joints follow exactly."""
    robot, space = sim_arm.robot_3d(), sim_arm.space_3d()
    names, rest = (*robot.joints, *robot.gripper), np.zeros(7)
    with EpisodeWriter(path, "tablecam_optical_frame", "world") as bag:
        bag.robot_description(reach_bag.FIRST, sim_arm.scene().urdf)
        for number, split in enumerate(reach_bag.SPLITS):
            rng = np.random.default_rng([seed, number])
            start, x = reach_bag.FIRST + number * 60 * 10**9, space.sample(rng)
            bag.episode(start, number, split, "play")
            bag.camera_info(start, reach_bag.INTRINSICS)
            knots = space.constrain(x, np.zeros(4), space.sample_play(ticks, rng))
            trajectory = space.to_trajectory(space.inverse_kinematics(x), rest, rest, knots)
            q, qd, _ = trajectory.sample(PERIOD * np.arange(ticks + 1))
            for tick in range(ticks + 1):
                t = start + round(tick * PERIOD * 1e9)
                bag.image(t, reach_bag.picture(space.tool_coordinates(q[tick])[:2]))
                bag.joint_state(t, names, np.append(q[tick], 0.0), np.append(qd[tick], 0.0), np.zeros(8))
                if tick < ticks:
                    moved = space.executed(q[tick], q[tick + 1])
                    bag.executed(t, t + round(PERIOD * 1e9), PERIOD, space.name, moved, 1)
    return path

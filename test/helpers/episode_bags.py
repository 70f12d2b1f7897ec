"""Small bags of invented episodes: pictures whose grey tells the time, joints on straight lines."""

from types import SimpleNamespace

import numpy as np

from jepa_ros.bags.writer import EpisodeWriter

FIELDS = (("a", "b"), ("g",))
SPACE = SimpleNamespace(name="planar_velocity", dimension=2, period=0.1, tool_coordinates=lambda q: 10.0 * q)
"""Stands in for the action space: the tool's position is ten times the joints'."""
INTRINSICS = {"width": 64, "height": 48, "fx": 50.0, "fy": 51.0, "cx": 31.5, "cy": 23.5}
NAMES = ("g", "b", "x", "a")  # in another order than asked for
FIRST = 1_700_000_000_000_000_000


def grey(t):
    """The picture (48, 64, 3) of time t s in an episode."""
    return np.full((48, 64, 3), round(100 * t), np.uint8)


def joints(t):
    """Positions of a, b and g in rad at time t s."""
    return np.array([0.01 * t, -0.02 * t, 0.5 + 0.1 * t])


def actions(ticks):
    return np.stack([0.05 * np.arange(ticks), np.full(ticks, -0.5)], axis=1).astype(np.float32)


def write_episode(bag, number, split, ticks, start, rate=10.0, offset=0.0, frame_times=None):
    """One episode of `ticks` from `start` ns on; frames at `rate` Hz from `offset` s on, or at frame_times s."""

    def ns(t):
        return start + round(t * 1e9)

    if frame_times is None:
        frame_times = np.arange(offset, ticks * 0.1 + 1e-6, 1 / rate)
    bag.episode(start, number, split, "play")
    bag.camera_info(start, INTRINSICS)
    messages = [(t, 0, lambda t=t: bag.image(ns(t), grey(t))) for t in frame_times]
    for t in np.arange(0.0, ticks * 0.1 + 0.03, 0.02):
        q = np.append(joints(t), 9.0)[[2, 1, 3, 0]]
        velocity = np.array([0.1, -0.02, 9.0, 0.01])
        messages.append((t, 1, lambda t=t, q=q, v=velocity: bag.joint_state(ns(t), NAMES, q, v, 0 * q)))
    for k, values in enumerate(actions(ticks)):
        t = 0.1 * k
        messages.append(
            (t + 0.1, 2, lambda t=t, v=values: bag.executed(ns(t), ns(t + 0.1), 0.1, "planar_velocity", v, 1))
        )
    for _, _, write in sorted(messages, key=lambda m: m[:2]):
        write()


def write_bag(path, episodes, urdf="<robot/>", pose=True):
    """episodes: keyword arguments of write_episode, `split` and `ticks` at least."""
    with EpisodeWriter(path, "camera", "world") as bag:
        bag.robot_description(FIRST, urdf)
        if pose:
            bag.camera_pose(FIRST, np.array([0.1, 0.2, 0.3]), np.array([0.0, 0.0, 0.6, 0.8]))
        for number, settings in enumerate(episodes):
            write_episode(bag, number, start=FIRST + number * 10 * 10**9, **settings)
    return path

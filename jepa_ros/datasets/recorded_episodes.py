"""Reads the episodes of bags at the control rate, through the camera node's own preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jepa_ros.bags.cameras import camera_connections
from jepa_ros.bags.grid import interpolate, nearest
from jepa_ros.bags.reader import NEEDED, open_bag, read_messages
from jepa_ros.datasets.episodes import Episode
from jepa_ros.datasets.positions import Places
from jepa_ros.errors import InputError
from jepa_ros.images import decode, decode_compressed, preprocess
from jepa_ros.robot.motion.action_space import PlanarVelocity


@dataclass
class _Recording:
    """The messages of one episode as they come; times in s from the episode's start. Frames and their times: a list for
    each camera. objects: times and positions (3,) m by name."""

    number: int
    split: str
    start: int
    frames: list[list[np.ndarray]]
    frame_times: list[list[float]]
    states: list[np.ndarray] = field(default_factory=list)
    state_times: list[float] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    action_times: list[float] = field(default_factory=list)
    objects: dict[str, list[tuple[float, np.ndarray]]] = field(default_factory=dict)


def read_episodes(
    path: Path,
    space: PlanarVelocity,
    fields: tuple[tuple[str, ...], tuple[str, ...]],
    size: int,
    progress: Callable[[int], None] = lambda frames: None,
    cameras: tuple[str, ...] = (),
    places: Places | None = None,
) -> Iterator[Episode]:
    """Episodes of a bag. fields: joints and gripper joints of the proprioception. progress: called with frames read.

    cameras: the image topics in the order of the model's views; none: the one that there is. places: positions to read
    along; the episodes are PlacedEpisodes then. Raises InputError where the bag cannot be read, lacks a topic or a
    joint, or holds what would spoil a training.
    """
    joints, gripper = fields
    frames = 0
    for recording in _recordings(path, joints, gripper, size, cameras, places):
        _check(path, recording, space.period)
        episode = _at_control_rate(recording, space, len(joints), places)
        frames += sum(map(len, recording.frames))
        progress(frames)
        if episode is not None:
            yield episode


def _recordings(
    path: Path,
    joints: tuple[str, ...],
    gripper: tuple[str, ...],
    size: int,
    cameras: tuple[str, ...],
    places: Places | None,
) -> Iterator[_Recording]:
    wanted = {kind for name, kinds in NEEDED.items() for kind in kinds if name != "image"}
    current: _Recording | None = None
    names, columns = None, ([], [])  # of the newest joint states, and where the wanted joints are in them
    with open_bag(path) as reader:
        images = camera_connections(path, reader, cameras)
        view = {c.id: k for k, connections in enumerate(images) for c in connections}
        objects = {} if places is None else places.connections(path, reader)
        connections = [c for c in reader.connections if c.msgtype in wanted or c.id in view or c.id in objects]
        for connection, message in read_messages(path, reader, connections):
            stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            if connection.msgtype == "jepa_msgs/msg/Episode":
                if current is not None:
                    yield current
                current = _Recording(message.id, message.split, stamp, [[] for _ in images], [[] for _ in images])
            if current is None:
                continue
            t = (stamp - current.start) * 1e-9
            if connection.msgtype == "sensor_msgs/msg/JointState":
                if names != list(message.name):
                    names, columns = list(message.name), _columns(path, message.name, joints, gripper)
                arm, fingers = columns
                current.states.append(_state(path, message, arm, fingers))
                current.state_times.append(t)
            elif connection.msgtype == "jepa_msgs/msg/Action":
                current.actions.append(message.values)
                current.action_times.append(t)
            elif connection.id in view:
                current.frames[view[connection.id]].append(preprocess(_image(path, connection.topic, message), size))
                current.frame_times[view[connection.id]].append(t)
            elif connection.id in objects:
                seen = current.objects.setdefault(objects[connection.id], [])
                seen.append((t, places.position(path, connection, message)))
    if current is not None:
        yield current


def _image(path: Path, topic: str, m) -> np.ndarray:
    try:
        if hasattr(m, "format"):
            return decode_compressed(m.format, m.data)
        return decode(m.encoding, m.width, m.height, m.step, m.data, m.is_bigendian)
    except InputError as error:
        raise InputError(f"bag {path}: {topic}: {error}") from None


def _state(path: Path, message, arm: list[int], fingers: list[int]) -> np.ndarray:
    """(P,) positions and velocities of the arm, positions of the fingers."""
    for name, values in (("position", message.position), ("velocity", message.velocity)):
        if len(values) != len(message.name):
            raise InputError(
                f"bag {path}: joint_states: expected a {name} for each of {len(message.name)} joints, "
                f"found {len(values)}"
            )
    return np.concatenate([message.position[arm], message.velocity[arm], message.position[fingers]])


def _check(path: Path, r: _Recording, period: float) -> None:
    """Refuse an episode that would poison or crash a training. Raises InputError."""
    where = f"bag {path}: episode {r.number}"
    for what, rows in (("joint_states", r.states), ("executed", r.actions)):
        if len({len(row) for row in rows}) > 1:
            raise InputError(f"{where}: {what}: expected equally many values a message, found different numbers")
        if rows and not np.isfinite(np.array(rows, float)).all():
            raise InputError(f"{where}: {what}: expected finite values, found NaN or Inf")
    for times in r.frame_times:
        if len(times) > 2 and (every := float(np.median(np.diff(times)))) > 1.2 * period:
            raise InputError(f"{where}: images: expected {1 / period:g} Hz at least, found {1 / every:.1f} Hz")


def _columns(path: Path, names: list[str], joints: tuple[str, ...], gripper: tuple[str, ...]) -> tuple[list, list]:
    missing = [j for j in (*joints, *gripper) if j not in names]
    if missing:
        raise InputError(f"bag {path}: joint_states: expected the joints {missing}, found {list(names)}")
    return [names.index(j) for j in joints], [names.index(j) for j in gripper]


def _at_control_rate(r: _Recording, space: PlanarVelocity, arm: int, places: Places | None) -> Episode | None:
    """The episode on the control grid, up to where a frame is missing: each tick takes the nearest one, within three
    quarters of the time between two, as cameras jitter. None where less than a tick is left.

    Frames of further cameras are those nearest to the first one's, within as much; an episode begins where all are
    there. States are interpolated at the first camera's stamps; an action is the displacement let through between two
    of them."""
    if min(map(len, r.frames)) < 2 or not r.actions or len(r.states) < 2:
        return None
    times, action_times = np.array(r.frame_times[0]), np.array(r.action_times)
    others = [nearest(np.array(own), times) for own in r.frame_times[1:]]
    whole = np.logical_and.reduce([np.ones(len(times), bool), *(near for _, near in others)])
    begin, end = times[int(np.argmax(whole))], min(action_times[-1] + space.period, times[-1])
    # No frame is the nearest of more than two ticks in a row: a stamp from another time makes no endless grid.
    grid = begin + space.period * np.arange(
        min(max(int((end + 1e-6 - begin) / space.period) + 1, 0), 2 * len(times) + 2)
    )
    taken, good = nearest(times, grid)
    good &= whole[taken]
    if not good.all():
        taken = taken[: int(np.argmin(good))]
    if len(taken) < 2:
        return None
    at = times[taken]
    views = [np.stack([r.frames[0][i] for i in taken])]
    for frames, (index, _) in zip(r.frames[1:], others, strict=True):
        views.append(np.stack([frames[i] for i in index[taken]]))
    edges = np.append(action_times, action_times[-1] + space.period)
    travelled = np.vstack([np.zeros(len(r.actions[0])), np.cumsum(np.array(r.actions, float), axis=0)])
    actions = np.diff(interpolate(at, edges, travelled), axis=0)
    states = interpolate(at, np.array(r.state_times), np.array(r.states))
    tool = np.array([space.tool_coordinates(q) for q in states[:, :arm]])
    frames = views[0] if len(views) == 1 else np.stack(views, axis=1)
    episode = Episode(frames, states.astype(np.float32), actions.astype(np.float32), tool, r.split)
    return episode if places is None else places.place(episode, at, states[:, :arm], r.objects)

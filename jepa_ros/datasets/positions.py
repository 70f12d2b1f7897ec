"""Named positions that a bag knows of: the tool's by forward kinematics, objects' from topics of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader

from jepa_ros.datasets.episodes import Episode
from jepa_ros.errors import InputError
from jepa_ros.robot.motion.kinematics import Kinematics

KINDS = ("geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/PointStamped")
TOOL = "tool"
GAP = 0.15
"""s between a frame and the nearest message beyond which an object counts as not seen."""


@dataclass(frozen=True)
class PlacedEpisode(Episode):
    """An episode that also has positions by name, (T + 1, 3) m in the base frame; NaN where an object was not seen."""

    positions: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Places:
    """What to read along with the episodes of a bag: the tool's position, and those of objects.

    kinematics: of the arm, its joints those of the proprioception. objects: topics by name; their messages are to be in
    `base_frame`.
    """

    kinematics: Kinematics
    base_frame: str
    objects: Mapping[str, str] = field(default_factory=dict)

    def connections(self, path: Path, reader: Reader) -> dict[int, str]:
        """Names of objects by the id of their connection. Raises InputError that lists the topics there are."""
        found: dict[int, str] = {}
        for name, topic in self.objects.items():
            own = [c for c in reader.connections if c.topic.strip("/") == topic.strip("/") and c.msgtype in KINDS]
            if not own:
                raise InputError(
                    f"bag {path}: expected positions of {name} on the topic {topic} (PoseStamped or PointStamped), "
                    f"found {_listed(reader.connections)}"
                )
            found |= {c.id: name for c in own}
        return found

    def position(self, path: Path, connection: Connection, message) -> np.ndarray:
        """(3,) m of a message. Raises InputError where it is in another frame."""
        if message.header.frame_id.strip("/") != self.base_frame:
            raise InputError(
                f"bag {path}: {connection.topic}: expected positions in the frame {self.base_frame}, "
                f"found {message.header.frame_id or 'none'}"
            )
        point = message.pose.position if connection.msgtype == KINDS[0] else message.point
        return np.array([point.x, point.y, point.z])

    def place(
        self, episode: Episode, at: np.ndarray, joints: np.ndarray, seen: Mapping[str, Sequence[tuple]]
    ) -> PlacedEpisode:
        """The episode with positions at its frames' times `at` (T + 1,) s.

        joints: (T + 1, J) rad then. seen: of each object the times s and positions (3,) m that were read.
        """
        positions = {TOOL: np.array([self.kinematics.forward(q)[0] for q in joints])}
        positions |= {name: _at(at, seen.get(name, ())) for name in self.objects}
        return PlacedEpisode(**vars(episode), positions=positions)


def parse_objects(values: Sequence[str]) -> dict[str, str]:
    """Topics by name of options NAME=TOPIC. Raises InputError that names the one that is none."""
    objects: dict[str, str] = {}
    for value in values:
        name, _, topic = value.partition("=")
        if not (name.isidentifier() and name.isascii() and topic.strip("/")):
            raise InputError(f"object '{value}': expected NAME=TOPIC, the name of letters, digits and underscores")
        if name == TOOL or name in objects:
            why = "the name of the arm's own tool" if name == TOOL else "the name twice"
            raise InputError(f"object '{value}': expected a name of its own, found {why}")
        objects[name] = topic
    return objects


def _at(at: np.ndarray, seen: Sequence[tuple[float, np.ndarray]]) -> np.ndarray:
    """(n, 3): positions interpolated at times (n,), NaN where no message is near or it is not finite."""
    if not seen:
        return np.full((len(at), 3), np.nan)
    order = np.argsort([t for t, _ in seen], kind="stable")
    times = np.array([seen[i][0] for i in order])
    values = np.array([seen[i][1] for i in order])
    found = np.stack([np.interp(at, times, column) for column in values.T], axis=1)
    found[np.abs(times - at[:, None]).min(1) > GAP] = np.nan
    return found


def _listed(connections: Sequence[Connection]) -> str:
    return ", ".join(sorted({f"{c.topic} ({c.msgtype.rpartition('/')[2]})" for c in connections})) or "no topic at all"

"""Named positions in an episode: the tool's by forward kinematics, those of objects from topics of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jepa_ros.datasets.segments import Track
from jepa_ros.datasets.stamps import interpolate
from jepa_ros.robot.motion.kinematics import Kinematics

TOOL = "tool"
SEEN_WITHIN_S = 0.15  # time between a frame and the nearest message from which an object counts as not seen


@dataclass(frozen=True)
class PositionSampler:
    """Positions of the tool and of objects at the times of frames.

    kinematics: of the arm; its joints are those of the proprioception. objects: names of the objects, whose messages
    are in `base_frame`.
    """

    kinematics: Kinematics
    base_frame: str
    objects: Mapping[str, str] | Sequence[str] = ()

    def sample(self, at: np.ndarray, joints: np.ndarray, tracks: Mapping[str, Track]) -> dict[str, np.ndarray]:
        """Return positions (n, 3) m in the base frame by name; NaN where an object was not seen.

        at: (n,) s, times of the frames. joints: (n, J) rad at those times. tracks: of each object its positions (3,) m.
        """
        positions = {TOOL: np.array([self.kinematics.forward(q)[0] for q in joints])}
        return positions | {name: _sample(at, tracks[name]) for name in self.objects}


def _sample(at: np.ndarray, track: Track) -> np.ndarray:
    if not len(track.times):
        return np.full((len(at), 3), np.nan)
    found = interpolate(at, track.times, track.array())
    found[np.abs(track.times - at[:, None]).min(1) > SEEN_WITHIN_S] = np.nan
    return found

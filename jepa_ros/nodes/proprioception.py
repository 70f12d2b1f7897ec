"""joint_states as the proprioception that a model takes."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import JointState

from jepa_ros.errors import InputError
from jepa_ros.nodes.convert import to_seconds
from jepa_ros.world_model.config import ProprioceptionConfig


class ProprioceptionReader:
    """Picks fields by joint name; the columns are looked up again only when the names change."""

    def __init__(self, config: ProprioceptionConfig):
        self._config = config
        self._names: list[str] | None = None

    def read(self, message: JointState) -> tuple[float, np.ndarray]:
        """Stamp s and (P,) rad, rad/s. Raises InputError where a joint is missing or a value is not finite."""
        if message.name != self._names:
            self._columns = [self._find(message.name, joints) for joints in (self._config.joints, self._config.gripper)]
            self._names = list(message.name)
        arm, fingers = self._columns
        position, velocity = np.array(message.position), np.array(message.velocity)
        if not len(position) == len(velocity) == len(self._names):
            sizes = f"{len(position)} and {len(velocity)}"
            raise InputError(f"joint_states: expected {len(self._names)} positions and velocities, found {sizes}")
        state = np.concatenate([position[arm], velocity[arm], position[fingers]])
        if not np.isfinite(state).all():
            raise InputError("joint_states: expected finite values, found NaN or Inf")
        return to_seconds(message.header.stamp), state

    def _find(self, names: list[str], wanted: tuple[str, ...]) -> list[int]:
        missing = [j for j in wanted if j not in names]
        if missing:
            raise InputError(f"joint_states: expected the joints {missing}, found {list(names)}")
        return [names.index(j) for j in wanted]

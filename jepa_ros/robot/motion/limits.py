"""Joint limits: reading, narrowing, checking paths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.motion.path import Path
from jepa_ros.robot.urdf import RobotDescription

if TYPE_CHECKING:
    from jepa_ros.robot.config import RobotConfig

TOLERANCE = 1e-4  # relative, of velocity, acceleration and jerk: rounding
POSITION_TOLERANCE = 1e-6  # rad


@dataclass(frozen=True, eq=False)
class JointLimits:
    """Limits of J joints, arrays (J,): position in [lower, upper] rad, |velocity| rad/s, |acceleration| rad/s²,
    |jerk| rad/s³. lower and upper may be infinite (both: a continuous joint); the others are finite and positive.

    Raises InputError where shapes do not match or a value is out of these ranges.
    """

    names: tuple[str, ...]
    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) != len(self.names):
            raise InputError(f"joint limits: no or duplicate joint names: {list(self.names)}")
        for field in ("lower", "upper", "velocity", "acceleration", "jerk"):
            values = np.array(getattr(self, field), dtype=float)
            if values.shape != (len(self.names),):
                raise InputError(f"joint limits {field}: expected {len(self.names)} values, found shape {values.shape}")
            if np.isnan(values).any():
                raise InputError(f"joint limits {field}: expected numbers, found NaN")
            values.flags.writeable = False
            object.__setattr__(self, field, values)
        for i, name in enumerate(self.names):
            if not self.lower[i] < self.upper[i]:
                raise InputError(f"joint {name}: expected lower < upper, found {self.lower[i]} and {self.upper[i]} rad")
            for field in ("velocity", "acceleration", "jerk"):
                value = getattr(self, field)[i]
                if not 0 < value < math.inf:
                    raise InputError(f"joint {name}: expected a finite {field} limit above 0, found {value}")

    @classmethod
    def from_description(
        cls,
        description: RobotDescription,
        joint_limits: Mapping[str, object],
        names: Sequence[str],
        margin: float = 0.0,
    ) -> JointLimits:
        """Return the limits of the joints `names` from a robot description, narrowed by MoveIt's `joint_limits` keys.

        joint_limits: by joint name, the keys as mapping or as attributes; they never widen the description's limits.
        margin: rad kept from both ends of each joint's range. Raises InputError where a joint is not in the
        description, where acceleration or jerk limits (which URDF lacks) are missing, or where no range is left.
        """
        rows = []
        for name in names:
            joint = description.joints.get(name)
            if joint is None:
                known = sorted(description.joints)
                some = f"{', '.join(known[:8])}{', …' if len(known) > 8 else ''}"
                raise InputError(f"joint {name}: expected in the robot description, found {some}")
            if joint.type not in ("revolute", "continuous", "prismatic"):
                raise InputError(f"joint {name}: expected a joint with one axis, found type {joint.type}")
            keys = joint_limits.get(name) or {}
            keys = keys if isinstance(keys, Mapping) else vars(keys)  # RobotConfig's
            lower, upper = joint.lower, joint.upper
            if keys.get("has_position_limits", True):
                lower = max(lower, _value(name, keys, "min_position", -math.inf))
                upper = min(upper, _value(name, keys, "max_position", math.inf))
            velocity = joint.velocity if joint.velocity is not None else math.inf
            if keys.get("has_velocity_limits", True):
                velocity = min(velocity, _value(name, keys, "max_velocity", math.inf))
            if math.isinf(velocity):
                raise InputError(f"joint {name}: expected a velocity limit in the description or YAML, found none")
            acceleration, jerk = (_required(name, keys, kind) for kind in ("acceleration", "jerk"))
            rows.append((lower + margin, upper - margin, velocity, acceleration, jerk))
        lower, upper, velocity, acceleration, jerk = np.array(rows, dtype=float).reshape(-1, 5).T
        return cls(tuple(names), lower, upper, velocity, acceleration, jerk)

    @classmethod
    def from_robot(cls, robot: RobotConfig, urdf: str) -> JointLimits:
        """Return a robot's limits: those of its description `urdf`, narrowed by its YAML. Raises InputError."""
        description = RobotDescription.from_urdf(urdf)
        return cls.from_description(description, robot.joint_limits, robot.joints, robot.position_margin)

    @cached_property
    def continuous(self) -> np.ndarray:
        """(J,) bool: True for joints without position limits, whose positions q and q + 2 pi are the same place.

        A continuous joint of the description that the robot's YAML gives position limits is not among them.
        """
        continuous = np.isinf(self.lower) & np.isinf(self.upper)
        continuous.flags.writeable = False
        return continuous

    def scaled(self, speed: float) -> JointLimits:
        """Return the limits with velocities times `speed` (0 < speed ≤ 1)."""
        return replace(self, velocity=self.velocity * speed)

    def compute_usage(self, path: Path) -> LimitUsage:
        """Return how far `path`, sampled at 5 ms, uses the limits; infinitely where a value is not finite."""
        samples = path.samples()
        # Flat reductions over contiguous memory: this runs for every window, and by joint it takes four times as long.
        ratios = samples[1:] * self._inverse
        flat = ratios.reshape(3, -1)
        most = np.maximum(flat.max(axis=1), -flat.min(axis=1)).tolist()
        outward = max(float((samples[0] - self.upper).max()), float((self.lower - samples[0]).max()))
        if not all(map(math.isfinite, (*most, float(samples[0].sum())))):
            return LimitUsage(math.inf, math.inf, math.inf, math.inf, "a value is not finite")
        if outward <= POSITION_TOLERANCE and max(most) <= 1.0 + TOLERANCE:
            return LimitUsage(most[0], most[1], most[2], max(outward, 0.0), "")
        outside = self.outward(_in_order(samples[0])).max(axis=0)
        text = self._worst(np.abs(ratios).max(axis=(1, 2)), outside)
        return LimitUsage(most[0], most[1], most[2], float(outside.max()), text)

    def _worst(self, ratios: np.ndarray, outside: np.ndarray) -> str:
        """Describe the worst of ratios (3, J) and rad outside the position limits (J,)."""
        if outside.max() > POSITION_TOLERANCE:
            return f"position of {self.names[int(outside.argmax())]} exceeds its limits by {outside.max():.3f} rad"
        kind, joint = divmod(int(ratios.argmax()), len(self.names))
        kinds = ("velocity", "acceleration", "jerk")
        return f"{kinds[kind]} of {self.names[joint]} is {ratios.max():.2f} times its limit"

    @cached_property
    def _inverse(self) -> np.ndarray:
        return 1.0 / np.stack((self.velocity, self.acceleration, self.jerk))[:, None, None, :]

    def allows(self, path: Path) -> bool:
        """Check that the whole path keeps every limit (see LimitUsage.within_limits)."""
        return self.compute_usage(path).within_limits

    def find_exit_time(self, path: Path) -> float | None:
        """Return the time in s of the last sample before `path` first moves out of the position limits, or None."""
        samples = path.samples()[0]
        bad = (self.outward(_in_order(samples)) > POSITION_TOLERANCE).any(axis=1)
        if not bad.any():
            return None
        m = samples.shape[0]
        segment, k = divmod(max(int(bad.argmax()) - 1, 0), m)
        t0, t1 = path.times[segment], path.times[min(segment + 1, len(path) - 1)]
        return float(t0 + (t1 - t0) * k / max(m - 1, 1))

    def excess(self, positions: np.ndarray) -> np.ndarray:
        """Return how far positions (..., J) rad lie outside the limits, 0 where inside."""
        return np.maximum(np.maximum(positions - self.upper, self.lower - positions), 0.0)

    def outward(self, positions: np.ndarray) -> np.ndarray:
        """Return the rad (M, J) by which successive positions (M, J) leave the limits; moving inward counts as 0."""
        excess = self.excess(positions)
        return excess - np.minimum.accumulate(excess, axis=0)


class LimitUsage(NamedTuple):
    """Largest ratio to each limit along a path (1: at the limit), rad moved out of the position limits, and a sentence
    about the worst."""

    velocity: float
    acceleration: float
    jerk: float
    position: float
    text: str

    @property
    def within_limits(self) -> bool:
        """True where the path keeps all limits."""
        return self.position <= POSITION_TOLERANCE and max(self[:3]) <= 1.0 + TOLERANCE

    @property
    def slowdown(self) -> float:
        """Factor ≥ 1 by which time must be stretched to keep the velocity, acceleration and jerk limits."""
        worst = max(self.velocity, math.sqrt(self.acceleration), float(np.cbrt(self.jerk)))
        return 1.0 if max(self[:3]) <= 1.0 + TOLERANCE else max(worst, 1.0)


def _in_order(samples: np.ndarray) -> np.ndarray:
    """Return position samples (m, n, J) of Path.samples in the order of time (m n, J)."""
    return samples.transpose(1, 0, 2).reshape(-1, samples.shape[2])


def _required(name: str, keys: Mapping[str, object], kind: str) -> float:
    value = _value(name, keys, f"max_{kind}", math.inf) if keys.get(f"has_{kind}_limits", True) else math.inf
    if math.isinf(value):
        raise InputError(f"joint {name}: expected joint_limits with max_{kind} in the robot's YAML, found none")
    return value


def _value(name: str, keys: Mapping[str, object], key: str, default: float) -> float:
    value = keys.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"joint_limits of {name}: expected a number for {key}, found {value!r}")
    return float(value)

"""Clearance: checks joint paths against self-collision, keep-out boxes, the workspace and the joint limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.collision.self_collision import SelfCollision, compute_levers
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.path import Path

WORKSPACE_TOLERANCE = 0.01  # m by which the tool may leave the workspace where it turns while braking
SAMPLE_PERIOD = 0.01  # s between the samples of a path
OUTWARD_TOLERANCE = 1e-4  # m or rad, rounding error of a motion that begins outside a limit


@dataclass(frozen=True)
class Box:
    """A keep-out box: name, lowest and highest corner (3,) m in the base frame.

    It keeps out the tool frame's origin, which may be at the wrist. To keep out the whole arm it must be an obstacle of
    the SelfCollision as well, as in Clearance.from_robot.
    """

    name: str
    low: np.ndarray
    high: np.ndarray

    def __post_init__(self) -> None:
        corners = (self.low, self.high)
        if any(c.shape != (3,) or not np.isfinite(c).all() for c in corners) or not (self.low < self.high).all():
            found = " and ".join(str(corner.tolist()) for corner in corners)
            raise InputError(f"keep-out box {self.name!r}: expected low < high on every axis, found {found}")

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray | float) -> np.ndarray:
        """Return the distance (...) in m from points to the box, negative inside. Separate x, y, z are several times as
        fast as one array."""
        centre, half = 0.5 * (self.low + self.high), 0.5 * (self.high - self.low)
        beyond = [np.abs(p - c) - h for p, c, h in zip((x, y, z), centre, half, strict=True)]
        outside = np.sqrt(sum(np.maximum(b, 0.0) ** 2 for b in beyond))
        return outside + np.minimum(np.maximum(np.maximum(beyond[0], beyond[1]), beyond[2]), 0.0)


class Clearance:
    """Checks joint paths of the arm of `kinematics` (J joints).

    limits, collision, border: None turns their check off. boxes: kept clear of by the tool. margin: m kept from boxes
    and between links; the margin of joint limits is in `limits` already. border: half-planes (E, 2), (E,) of the
    workspace in the base frame's x and y, or half-spaces (E, 3), (E,); inside is n.x <= offset.
    """

    def __init__(
        self,
        kinematics: Kinematics,
        limits: JointLimits | None = None,
        collision: SelfCollision | None = None,
        boxes: Sequence[Box] = (),
        margin: float = 0.02,
        border: tuple[np.ndarray, np.ndarray] | None = None,
    ):
        self.joints, self.collision, self.boxes, self.margin = kinematics.joints, collision, tuple(boxes), margin
        self._kinematics, self._limits = kinematics, limits
        self._border = border if border is not None and len(border[0]) else None
        self._lever = compute_levers(kinematics.model, self.joints, kinematics.tool_frame)

    @classmethod
    def from_robot(
        cls,
        robot: RobotConfig,
        urdf: str,
        kinematics: Kinematics,
        limits: JointLimits | None = None,
        border: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Clearance:
        """Return the clearance of a robot's configuration and description `urdf`.

        All links are kept out of `keep_out`; without `self_collision` only the tool is. Raises InputError where the
        robot at home is closer to itself than the margin.
        """
        boxes = [Box(box.name, np.array(box.low), np.array(box.high)) for box in robot.keep_out]
        own, home = robot.self_collision, np.array([robot.home[joint] for joint in robot.joints])
        if own is None:
            return cls(kinematics, limits, None, boxes, border=border)
        obstacles = [(f"keep-out box {box.name!r}", box.low, box.high) for box in boxes]
        collision = SelfCollision(
            urdf, robot.joints, ignore=own.ignore, home=home, obstacles=obstacles, base_frame=robot.base_frame
        )
        made = cls(kinematics, limits, collision, boxes, own.margin, border)
        made.check_home(home)
        return made

    def check_home(self, home: np.ndarray) -> None:
        """Raise InputError where the arm at home (J,) rad is closer to itself than the margin."""
        if self.collision is None:
            return
        distance, a, b = self.collision.find_closest_pair(home, obstacles=False)
        if distance < self.margin:
            raise InputError(
                f"self_collision: expected at least {self.margin:.3f} m between {a} and {b} at home, found "
                f"{distance:.3f} m: lower the margin or ignore the pair"
            )

    def distance(self, q: np.ndarray) -> float:
        """Return the distance in m between the arm at q (J,) rad and the closest link or box; inf without any."""
        least = self.collision.distance(q) if self.collision is not None else np.inf
        if self.boxes:
            tool = self._kinematics.forward(q)[0]
            least = min(least, *(float(box.distance(*tool)) for box in self.boxes))
        return least

    def update_other_joints(self, names: Sequence[str], positions: Sequence[float]) -> None:
        """Move the rest of the robot (the other arm, fingers) to measured positions, rad or m by name."""
        if self.collision is not None:
            own = set(self.joints)
            others = {n: p for n, p in zip(names, positions, strict=False) if n not in own and np.isfinite(p)}
            self.collision.set_joints({n: p for n, p in others.items() if self.collision.has_joint(n)})

    def check_path(self, path: Path) -> str:
        """Check a whole path as `check` does, with times from its start."""
        if len(path) == 1:
            return ""
        samples = path.samples(SAMPLE_PERIOD)[0]
        q = samples.transpose(1, 0, 2).reshape(-1, samples.shape[2])
        within = np.linspace(0.0, 1.0, samples.shape[0])
        times = (path.times[:-1, None] - path.start + np.outer(np.diff(path.times), within)).ravel()
        return self.check(times, q)

    def check(self, times: np.ndarray, q: np.ndarray) -> str:
        """Check joint positions q (M, J) rad at times (M,) s; return the first problem in one sentence, or "".

        Tool and self-collision are computed only at samples where a bound on the robot's motion since the last one does
        not already show that all is clear. Whatever is outside its limits at the start may move inward only.
        """
        return self._check_limits(times, q) or self._check_tool(times, q) or self._check_body(times, q)

    def _check_limits(self, times: np.ndarray, q: np.ndarray) -> str:
        if self._limits is None:
            return ""
        outward = self._limits.outward(q)
        if outward.max() <= OUTWARD_TOLERANCE:
            return ""
        k, j = np.unravel_index(int(outward.argmax()), outward.shape)
        upper = q[k, j] > self._limits.upper[j]
        side, limit = ("upper", self._limits.upper[j]) if upper else ("lower", self._limits.lower[j])
        beyond = f"{self._limits.excess(q[k])[j]:.3f} rad beyond its {side} limit of {limit:.3f} rad"
        return f"joint {self.joints[j]} goes {beyond} at {times[k]:.2f} s"

    def _check_tool(self, times: np.ndarray, q: np.ndarray) -> str:
        positions: dict[int, np.ndarray] = {}

        def tool(i: int) -> np.ndarray:
            if i not in positions:
                positions[i] = self._kinematics.forward(q[i])[0]
            return positions[i]

        def box_distance(box: Box, i: int) -> float:
            return float(box.distance(*tool(i)))

        travel = _travel(q, self._lever)
        if self._border is not None:
            normals, offsets = self._border
            axes = normals.shape[1]
            hit = _lowest(lambda i: float((offsets - normals @ tool(i)[:axes]).min()), travel, -WORKSPACE_TOLERANCE)
            if hit is not None:
                k, room = hit
                return f"the tool goes {-room:.3f} m out of the workspace at {times[k]:.2f} s"
        for box in self.boxes:
            hit = _lowest(partial(box_distance, box), travel, self.margin)
            if hit is not None:
                k, room = hit
                where = f"{room:.3f} m near" if room >= 0 else f"{-room:.3f} m into"
                text = f"the tool comes {where} the keep-out box {box.name!r} at {times[k]:.2f} s"
                return f"{text}; the margin is {self.margin:.3f} m"
        return ""

    def _check_body(self, times: np.ndarray, q: np.ndarray) -> str:
        if (collision := self.collision) is None:
            return ""
        hit = _lowest(lambda i: collision.distance(q[i]), _travel(q, collision.lever), self.margin)
        if hit is None:
            return ""
        distance, a, b = collision.find_closest_pair(q[hit[0]])
        how = f"come within {distance:.3f} m" if distance >= 0 else f"overlap by {-distance:.3f} m"
        return f"{a} and {b} {how} at {times[hit[0]]:.2f} s; the margin is {self.margin:.3f} m"


def _travel(q: np.ndarray, lever: np.ndarray) -> np.ndarray:
    """Return a bound (M,) in m of the motion of any point of the robot since the first of joint positions q (M, J)."""
    return np.concatenate([[0.0], np.cumsum(np.abs(np.diff(q, axis=0)) @ lever)])


def _lowest(value: Callable[[int], float], travel: np.ndarray, needed: float) -> tuple[int, float] | None:
    """Return the sample whose value is furthest below `needed`, and the value; None where none is below.

    value(i), m, changes by no more than travel (M,) does. An interval is halved only where its ends do not prove that
    all samples between them are above. A path that begins below `needed` must not fall below its first value.
    """
    last = len(travel) - 1
    known = {0: value(0), last: value(last)}
    needed = min(needed, known[0] - OUTWARD_TOLERANCE)
    stack = [(0, last)]
    while stack:
        i, j = stack.pop()
        if j - i < 2 or 0.5 * (known[i] + known[j] - (travel[j] - travel[i])) >= needed:
            continue
        k = (i + j) // 2
        known[k] = value(k)
        stack += [(i, k), (k, j)]
    worst = min(known, key=lambda i: known[i])
    return (worst, known[worst]) if known[worst] < needed else None

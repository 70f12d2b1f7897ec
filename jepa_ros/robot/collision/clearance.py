"""What a joint path may not come near: the arm itself, keep-out boxes, the workspace's border, the joints' ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.collision.self_collision import SelfCollision, levers
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.path import Path

BORDER = 0.01  # m by which the tool may leave the workspace where it turns and brakes at once; its polygon has it spare
STEP = 0.01  # s between the samples of a path
TOLERANCE = 1e-4  # m or rad by which a motion that begins outside may seem to go on outward: rounding


@dataclass(frozen=True)
class Box:
    """Keep out: name, lowest and highest corner (3,) m in the base frame.

    It forbids the tool frame's origin, which may well be at the wrist. For the whole arm it must be among the obstacles
    of the SelfCollision too, as Guardrails.from_robot has it.
    """

    name: str
    low: np.ndarray
    high: np.ndarray

    def __post_init__(self) -> None:
        for field in ("low", "high"):
            object.__setattr__(self, field, np.array(getattr(self, field), dtype=float))
        corners = (self.low, self.high)
        if any(c.shape != (3,) or not np.isfinite(c).all() for c in corners) or not (self.low < self.high).all():
            found = " and ".join(str(corner.tolist()) for corner in corners)
            raise InputError(f"keep-out box {self.name!r}: expected low < high on every axis, found {found}")

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """(...) m from points to the box; inside: how deep, negative. Coordinates apart: several times as fast."""
        centre, half = 0.5 * (self.low + self.high), 0.5 * (self.high - self.low)
        beyond = [np.abs(p - c) - h for p, c, h in zip((x, y, z), centre, half, strict=True)]
        outside = np.sqrt(sum(np.maximum(b, 0.0) ** 2 for b in beyond))
        return outside + np.minimum(np.maximum(np.maximum(beyond[0], beyond[1]), beyond[2]), 0.0)


class Clearance:
    """Judges joint paths of the arm of `kinematics` (J joints), exactly.

    limits, collision: None where they are not looked at. boxes: what the tool is kept out of. margin: m kept to boxes
    and between links; the joints' own is in their limits already. border: half-planes (E, 2), (E,) of the workspace in
    the base frame's x and y, or half-spaces (E, 3) of it, inside is n.x <= offset; None: it is not looked at.
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
        self._kinematics, self._limits, self._border = kinematics, limits, border
        self._lever = levers(kinematics.model, self.joints, kinematics.tool_frame)

    @classmethod
    def from_robot(
        cls,
        robot: RobotConfig,
        urdf: str,
        kinematics: Kinematics,
        limits: JointLimits | None = None,
        border: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Clearance:
        """That of the robot's configuration: `keep_out`, from which all links of the arm are kept out, and
        `self_collision`; where that is off, only the tool is kept out. urdf: its description.

        Raises InputError where the robot at home is nearer to itself than the margin.
        """
        boxes = [Box(box.name, box.low, box.high) for box in robot.keep_out]
        own, home = robot.self_collision, [robot.home[joint] for joint in robot.joints]
        if own is None:
            return cls(kinematics, limits, None, boxes, border=border)
        obstacles = [(f"keep-out box {box.name!r}", box.low, box.high) for box in boxes]
        place = {"obstacles": obstacles, "base_frame": robot.base_frame}
        collision = SelfCollision(urdf, robot.joints, ignore=own.ignore, home=home, **place)
        made = cls(kinematics, limits, collision, boxes, own.margin, border)
        made.check_home(home)
        return made

    def check_home(self, home: np.ndarray) -> None:
        """Raise InputError where the arm at home (J,) rad is nearer to itself than the margin."""
        if self.collision is None:
            return
        distance, a, b = self.collision.nearest(home, obstacles=False)
        if distance < self.margin:
            raise InputError(
                f"self_collision: expected {a} and {b} apart by the margin of {self.margin:.3f} m at home, "
                f"found {distance:.3f} m; lower the margin or ignore the pair"
            )

    def distance(self, q: np.ndarray) -> float:
        """m at joint positions q (J,) rad between the arm and the nearest thing it is kept out of; infinite where there
        is none."""
        least = self.collision.distance(q) if self.collision is not None else np.inf
        if self.boxes:
            tool = self._kinematics.forward(q)[0]
            least = min(least, *(float(box.distance(*tool)) for box in self.boxes))
        return least

    def update_other_joints(self, names: Sequence[str], positions: Sequence[float]) -> None:
        """The rest of the robot is where joint states say: the other arm and fingers, rad or m by name."""
        if self.collision is not None:
            own = set(self.joints)
            found = {n: p for n, p in zip(names, positions, strict=False) if n not in own and np.isfinite(p)}
            self.collision.place({n: p for n, p in found.items() if self.collision.knows(n)})

    def check_path(self, path: Path) -> str:
        """See check; of a whole path, times from its start."""
        if len(path) == 1:
            return ""
        samples = path.samples(STEP)[0]
        q = samples.transpose(1, 0, 2).reshape(-1, samples.shape[2])
        within = np.linspace(0.0, 1.0, samples.shape[0])
        times = (path.times[:-1, None] - path.start + np.outer(np.diff(path.times), within)).ravel()
        return self.check(times, q)

    def check(self, times: np.ndarray, q: np.ndarray) -> str:
        """What of joint positions q (M, J) rad at times (M,) s is forbidden, in one sentence; "" where nothing is.

        Tool and self-collision are looked at but where a bound on how far the robot can have moved since shows that
        nothing can be nearer than allowed. Whatever is outside of its bounds at the start may move inward only.
        """
        return self._check_limits(times, q) or self._check_tool(times, q) or self._check_body(times, q)

    def _check_limits(self, times: np.ndarray, q: np.ndarray) -> str:
        if self._limits is None:
            return ""
        excess = self._limits.excess(q)
        outward = excess - np.minimum.accumulate(excess, axis=0)
        if outward.max() <= TOLERANCE:
            return ""
        k, j = np.unravel_index(int(outward.argmax()), outward.shape)
        upper = q[k, j] > self._limits.upper[j]
        side, limit = ("upper", self._limits.upper[j]) if upper else ("lower", self._limits.lower[j])
        beyond = f"{excess[k, j]:.3f} rad beyond its {side} limit of {limit:.3f} rad"
        return f"joint {self.joints[j]} goes {beyond} at {times[k]:.2f} s"

    def _check_tool(self, times: np.ndarray, q: np.ndarray) -> str:
        positions: dict[int, np.ndarray] = {}

        def tool(i: int) -> np.ndarray:
            if i not in positions:
                positions[i] = self._kinematics.forward(q[i])[0]
            return positions[i]

        travel = _travel(q, self._lever)
        outside = self._border and _lowest(lambda i: self._inside(tool(i)), travel, -BORDER)
        if outside:
            k, room = outside
            return f"the tool goes {-room:.3f} m out of the workspace at {times[k]:.2f} s"
        for box in self.boxes:
            hit = _lowest(lambda i, box=box: float(box.distance(*tool(i))), travel, self.margin)
            if hit is not None:
                k, room = hit
                where = f"{room:.3f} m near" if room >= 0 else f"{-room:.3f} m into"
                text = f"the tool comes {where} the keep-out box {box.name!r} at {times[k]:.2f} s"
                return f"{text}; the margin is {self.margin:.3f} m"
        return ""

    def _check_body(self, times: np.ndarray, q: np.ndarray) -> str:
        if self.collision is None:
            return ""
        hit = _lowest(lambda i: self.collision.distance(q[i]), _travel(q, self.collision.lever), self.margin)
        if hit is None:
            return ""
        distance, a, b = self.collision.nearest(q[hit[0]])
        how = f"come within {distance:.3f} m" if distance >= 0 else f"overlap by {-distance:.3f} m"
        return f"{a} and {b} {how} at {times[hit[0]]:.2f} s; the margin is {self.margin:.3f} m"

    def _inside(self, tool: np.ndarray) -> float:
        """m from a tool position (3,) to the workspace's nearest border; negative: outside."""
        normals, offsets = self._border
        return float((offsets - normals @ tool[: normals.shape[1]]).min())


def _travel(q: np.ndarray, lever: np.ndarray) -> np.ndarray:
    """(M,) m that no point of the robot has moved farther than since the first of joint positions q (M, J)."""
    return np.concatenate([[0.0], np.cumsum(np.abs(np.diff(q, axis=0)) @ lever)])


def _lowest(value: Callable[[int], float], travel: np.ndarray, needed: float) -> tuple[int, float] | None:
    """The sample that falls the farthest below `needed` and its value; None where none does.

    value(i), m, changes by no more than travel (M,) does. An interval is halved only where its ends do not prove that
    all between them is enough. A path that begins with less than needed is held to what it begins with.
    """
    last = len(travel) - 1
    known = {0: value(0), last: value(last)}
    needed = min(needed, known[0] - TOLERANCE)
    stack = [(0, last)]
    while stack:
        i, j = stack.pop()
        if j - i < 2 or 0.5 * (known[i] + known[j] - (travel[j] - travel[i])) >= needed:
            continue
        k = (i + j) // 2
        known[k] = value(k)
        stack += [(i, k), (k, j)]
    worst = min(known, key=known.get)
    return (worst, known[worst]) if known[worst] < needed else None

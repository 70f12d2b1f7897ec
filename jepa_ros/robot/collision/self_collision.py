"""Self-collision of one arm: how near its links come to each other and to the rest of the robot (Pinocchio, coal)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pinocchio as pin

from jepa_ros.errors import InputError
from jepa_ros.robot.collision.shapes import Shape, attached, coal, link_shapes
from jepa_ros.robot.urdf import replace_continuous_joints

NEAR = 0.005  # m: pairs nearer than this in the reference posture are so by construction
SAMPLES = 15  # of each joint's range, in the search for pairs that never meet


class SelfCollision:
    """Distances between the links of one arm of J joints, and from them to the rest of the robot.

    urdf: of the whole robot; what stands for its links is said in shapes.link_shapes. joints: the arm's, in the order
    of q. All other joints stay at zero (the limit nearest to it) or where `others` (rad or m by name) and `place` put
    them. home: (J,) rad, the reference posture (default: zero). ignore: pairs of links never looked at. inflate: m by
    which every surface is moved outward. obstacles: boxes (name, lowest, highest corner m in base_frame, default: the
    root's) that count as links which never move and from which no pair is left out.

    A pair of links is left out where the arm's joints do not change its distance; where it is in `ignore`; and for the
    reasons of MoveIt's set-up assistant: "adjacent", one hangs on the other with one of the arm's joints between them
    (the fingers on the wrist, too); "near by construction", it is nearer than NEAR in the reference posture; "never",
    with two joints between them the shapes overlap by less than NEAR wherever those joints can go, which is what the
    shapes are wider than the links.

    Attributes: joints; pairs: the pairs of links that are looked at; left_out: pair → why, of those that the arm's
    joints do move; guessed: links whose shape the description does not give; lever: (J,) m, no point of the robot moves
    farther than lever @ |change of q|.

    Raises InputError where the URDF cannot be read or lacks a joint or link that is named.
    """

    def __init__(
        self,
        urdf: str,
        joints: Sequence[str],
        *,
        ignore: Iterable[Sequence[str]] = (),
        inflate: float = 0.0,
        home: Sequence[float] | None = None,
        others: Mapping[str, float] | None = None,
        obstacles: Iterable[tuple[str, Sequence[float], Sequence[float]]] = (),
        base_frame: str | None = None,
    ):
        try:
            self._model = pin.buildModelFromXML(replace_continuous_joints(urdf, np.pi))  # all there is, for sampling
        except (ValueError, RuntimeError) as error:
            line = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise InputError(f"robot_description: expected a URDF, found {line}") from None
        self.joints = tuple(joints)
        self._data = self._model.createData()
        self._columns = [self._column(name) for name in self.joints]
        self._q = np.clip(pin.neutral(self._model), self._model.lowerPositionLimit, self._model.upperPositionLimit)
        self.place(others or {})
        shapes, self.guessed = link_shapes(urdf)
        if not shapes:
            raise InputError("robot_description: expected links with collision geometry or mass, found none")
        self._geometry = pin.GeometryModel()
        self._links = [self._add(i, shape, inflate) for i, shape in enumerate(shapes)]
        self._shapes = len(shapes)
        self.lever = np.max([levers(self._model, self.joints, s.link, s.extent) for s in shapes], axis=0)
        ignored = self._known_pairs(ignore)
        reference = self._q[self._columns] if home is None else home
        self.left_out = self._choose(attached(urdf), ignored, reference)
        self._own = len(self._geometry.collisionPairs)
        for name, low, high in obstacles:
            self._add_obstacle(name, np.asarray(low, dtype=float), np.asarray(high, dtype=float), base_frame)
        self._renew()
        self.pairs = tuple(sorted({self._names(pair) for pair in self._geometry.collisionPairs}))

    def place(self, positions: Mapping[str, float]) -> None:
        """Joints outside of the arm (the other arm, the fingers) to `positions`, rad or m by name."""
        for name, value in positions.items():
            column = self._column(name)
            if column in self._columns:
                raise InputError(f"other joints: expected none of the arm's own, found {name!r}")
            self._q[column] = value

    def knows(self, joint: str) -> bool:
        """Whether the description has a joint of that name."""
        return self._model.existJointName(joint)

    def distance(self, q: np.ndarray) -> float:
        """Smallest distance in m between two links of a pair at q (J,) rad; negative: how deep they overlap; infinite
        where there is no pair."""
        index = self._nearest(q)
        return self._results[index].min_distance if self.pairs else np.inf

    def distances(self, q: np.ndarray) -> np.ndarray:
        """Smallest distances (N,) in m at joint positions q (N, J) rad."""
        return np.array([self.distance(row) for row in np.atleast_2d(q)])

    def nearest(self, q: np.ndarray, *, obstacles: bool = True) -> tuple[float, str, str]:
        """The smallest distance in m at q (J,) rad, and the two links that it is between; or without the obstacles."""
        index = self._nearest(q)
        count = len(self._results) if obstacles else self._own
        if not count:
            return np.inf, "", ""
        if index >= count:
            index = min(range(count), key=lambda i: self._results[i].min_distance)
        return self._results[index].min_distance, *self._names(self._geometry.collisionPairs[index])

    def _nearest(self, q: np.ndarray) -> int:
        q = np.asarray(q, dtype=float)
        if q.shape != (len(self.joints),):
            raise InputError(f"joint positions: expected shape ({len(self.joints)},), found {q.shape}")
        self._q[self._columns] = q
        return pin.computeDistances(self._model, self._data, self._geometry, self._distances, self._q)

    def _column(self, joint: str) -> int:
        if not self._model.existJointName(joint):
            known = list(self._model.names)[1:]
            raise InputError(f"robot_description: expected the joint {joint!r}, found {known}")
        return self._model.joints[self._model.getJointId(joint)].idx_q

    def _add(self, index: int, shape: Shape, inflate: float) -> str:
        frame_id = self._model.getBodyId(shape.link)
        frame = self._model.frames[frame_id]
        placement = frame.placement * pin.SE3(shape.rotation, shape.position)
        name, geometry = f"{shape.link} {index}", shape.geometry(inflate)
        self._geometry.addGeometryObject(pin.GeometryObject(name, frame.parentJoint, frame_id, placement, geometry))
        return shape.link

    def _add_obstacle(self, name: str, low: np.ndarray, high: np.ndarray, base_frame: str | None) -> None:
        """A box, and its pairs with all that the arm's joints move against it."""
        if base_frame is not None and not self._model.existBodyName(base_frame):
            raise InputError(f"robot_description: expected a link {base_frame!r}, found none of that name")
        frame_id = 0 if base_frame is None else self._model.getBodyId(base_frame)
        frame = self._model.frames[frame_id]
        placement = frame.placement * pin.SE3(np.eye(3), 0.5 * (low + high))
        box = pin.GeometryObject(name, frame.parentJoint, frame_id, placement, coal.Box(*(high - low)))
        index = self._geometry.addGeometryObject(box)
        self._links.append(name)
        still = self._moved_by(frame.parentJoint)
        for i in range(self._shapes):
            if self._moved_by(self._geometry.geometryObjects[i].parentJoint) != still:
                self._geometry.addCollisionPair(pin.CollisionPair(index, i))

    def _choose(self, hangs_on: dict[str, str], ignored: set, reference: np.ndarray) -> dict:
        """Adds the pairs to look at; returns those left out, by name, and why."""
        left_out = {}
        moved = [self._moved_by(shape.parentJoint) for shape in self._geometry.geometryObjects]
        above = {link: _above(link, hangs_on) for link in self._links}
        for a, second in enumerate(self._links):
            for b, first in enumerate(self._links[:a]):
                if moved[a] == moved[b]:
                    continue
                if len(moved[a] ^ moved[b]) == 1 and self._in_line(a, b, above):
                    left_out[first, second] = "adjacent"
                elif frozenset((first, second)) in ignored:
                    left_out[first, second] = "ignored"
                else:
                    self._geometry.addCollisionPair(pin.CollisionPair(b, a))
        self._renew()
        self._nearest(reference)
        near = [(p.first, p.second) for p, result in self._looked_at() if result.min_distance < NEAR]
        left_out |= self._remove(near, "near by construction")
        joints = {(p.first, p.second): moved[p.first] ^ moved[p.second] for p in self._geometry.collisionPairs}
        chained = {pair: j for pair, j in joints.items() if len(j) == 2 and self._in_line(*pair, above)}
        apart = [pair for pair, distance in self._least(chained, reference).items() if distance > -NEAR]
        return left_out | self._remove(apart, "never")

    def _in_line(self, a: int, b: int, above: dict[str, set[str]]) -> bool:
        return self._links[a] in above[self._links[b]] or self._links[b] in above[self._links[a]]

    def _least(self, pairs: dict[tuple, frozenset[int]], reference: np.ndarray) -> dict[tuple, float]:
        """The smallest distance in m of each pair over the ranges of the two joints that it depends on."""
        least = dict.fromkeys(pairs, np.inf)
        for two in set(pairs.values()):
            columns = [self.joints.index(self._model.names[joint]) for joint in two]
            results = {(p.first, p.second): r for p, r in self._looked_at() if pairs.get((p.first, p.second)) == two}
            for values in itertools.product(*(np.linspace(*self._range(c), SAMPLES) for c in columns)):
                q = np.array(reference, dtype=float)
                q[columns] = values
                self._nearest(q)
                least |= {pair: min(least[pair], result.min_distance) for pair, result in results.items()}
        return least

    def _range(self, joint: int) -> tuple[float, float]:
        """Where one of the arm's joints can go, rad; a turn where it has no limits."""
        column = self._columns[joint]
        low, high = self._model.lowerPositionLimit[column], self._model.upperPositionLimit[column]
        return max(low, -np.pi) if high > -np.pi else low, min(high, np.pi) if low < np.pi else high

    def _remove(self, pairs: list[tuple[int, int]], why: str) -> dict:
        for a, b in pairs:
            self._geometry.removeCollisionPair(pin.CollisionPair(a, b))
        self._renew()
        return {(self._links[a], self._links[b]): why for a, b in pairs}

    def _looked_at(self) -> Iterable[tuple[pin.CollisionPair, object]]:
        return zip(self._geometry.collisionPairs, self._results, strict=True)

    def _renew(self) -> None:
        self._distances = pin.GeometryData(self._geometry)
        self._results = self._distances.distanceResults

    def _names(self, pair: pin.CollisionPair) -> tuple[str, str]:
        return self._links[pair.first], self._links[pair.second]

    def _moved_by(self, joint: int) -> frozenset[int]:
        """Which of the arm's joints move what hangs on `joint`."""
        own = {self._model.getJointId(name) for name in self.joints}
        return frozenset(own & set(self._model.supports[joint]))

    def _known_pairs(self, ignore: Iterable[Sequence[str]]) -> set[frozenset[str]]:
        pairs = set()
        for pair in ignore:
            if isinstance(pair, str) or len(pair) != 2:
                raise InputError(f"self_collision ignore: expected pairs of links, found {pair!r}")
            for link in pair:
                if not self._model.existBodyName(link):
                    raise InputError(f"self_collision ignore: expected links of the robot, found {link!r}")
            pairs.add(frozenset(pair))
        return pairs


def _above(link: str, hangs_on: dict[str, str]) -> set[str]:
    """All links from the one that `link` hangs on up to the root."""
    found: set[str] = set()
    while (link := hangs_on.get(link)) is not None and link not in found:
        found.add(link)
    return found


def levers(model: pin.Model, joints: Sequence[str], frame: str, extent: float = 0.0) -> np.ndarray:
    """(J,) m: no point within `extent` m of a frame's origin moves farther than levers @ |change of q|, q of `joints`.

    A joint turns a point by no more than the chain between them, stretched out, and slides it by what it moves itself.
    """
    found = np.zeros(len(joints))
    placed = model.frames[model.getFrameId(frame)]
    reach, joint = extent + float(np.linalg.norm(placed.placement.translation)), placed.parentJoint
    while joint:
        slides = model.joints[joint].shortname().startswith("JointModelP")
        if model.names[joint] in joints:
            found[joints.index(model.names[joint])] = 1.0 if slides else reach
        if slides:
            column = model.joints[joint].idx_q
            reach += max(abs(model.lowerPositionLimit[column]), abs(model.upperPositionLimit[column]))
        reach += float(np.linalg.norm(model.jointPlacements[joint].translation))
        joint = model.parents[joint]
    return found

"""Self-collision: distances between the links of one arm, and to the rest of the robot (Pinocchio, coal)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pinocchio as pin
from numpy.typing import ArrayLike

from jepa_ros.errors import InputError
from jepa_ros.robot.collision.shapes import Shape, coal, link_shapes, parent_links
from jepa_ros.robot.motion.kinematics import pinocchio_errors
from jepa_ros.robot.urdf import replace_continuous_joints

CLOSE_BY_DESIGN = 0.005  # m: pairs closer than this in the reference posture are so by construction
RANGE_SAMPLES = 15  # per joint, in the search for pairs that never meet


class SelfCollision:
    """Distances between the links of one arm of J joints, and from them to the rest of the robot.

    urdf: of the whole robot; shapes.link_shapes describes the shapes of its links. joints: of the arm, in the order of
    q. All other joints stay at zero (or the limit closest to it) unless set by `others` (rad or m by name) or
    `set_joints`. home: (J,) rad, the reference posture (default: zero). ignore: pairs of links never checked. inflate:
    m by which every surface is moved outward. obstacles: boxes (name, lowest, highest corner, m in base_frame; default:
    the root) that count as fixed links, all of whose pairs are checked.

    A pair of links is left out where the arm's joints do not change its distance; where it is in `ignore`; and for the
    reasons of MoveIt's setup assistant: "adjacent", one joint of the arm lies between them in the tree (also between
    wrist and fingers); "near by construction", it is closer than CLOSE_BY_DESIGN in the reference posture; "never",
    with two joints between them the shapes, which are wider than the links, overlap by less than CLOSE_BY_DESIGN over
    the whole range of those joints.

    Attributes: joints; pairs: the pairs of links that are checked; left_out: pair → reason, of those that the arm's
    joints move; guessed: links whose shape the description does not give; lever: (J,) m, no point of the robot moves
    further than lever @ |change of q|.

    Raises InputError where the URDF is invalid or lacks a joint or link that is named.
    """

    def __init__(
        self,
        urdf: str,
        joints: Sequence[str],
        *,
        ignore: Iterable[Sequence[str]] = (),
        inflate: float = 0.0,
        home: ArrayLike | None = None,
        others: Mapping[str, float] | None = None,
        obstacles: Iterable[tuple[str, ArrayLike, ArrayLike]] = (),
        base_frame: str | None = None,
    ):
        with pinocchio_errors():  # a continuous joint's full range, for sampling
            self._model = pin.buildModelFromXML(replace_continuous_joints(urdf, np.pi))
        self.joints = tuple(joints)
        self._data = self._model.createData()
        self._columns = [self._column(name) for name in self.joints]
        self._q = np.clip(pin.neutral(self._model), self._model.lowerPositionLimit, self._model.upperPositionLimit)
        self.set_joints(others or {})
        shapes, self.guessed = link_shapes(urdf)
        if not shapes:
            raise InputError("robot_description: expected links with collision geometry or mass, found none")
        self._geometry = pin.GeometryModel()
        self._links = [self._add(i, shape, inflate) for i, shape in enumerate(shapes)]
        self._shapes = len(shapes)
        self.lever = np.max([compute_levers(self._model, self.joints, s.link, s.extent) for s in shapes], axis=0)
        ignored = self._check_ignored(ignore)
        reference = self._q[self._columns] if home is None else np.asarray(home, dtype=float)
        self.left_out = self._choose_pairs(parent_links(urdf), ignored, reference)
        self._own = len(self._geometry.collisionPairs)
        for name, low, high in obstacles:
            self._add_obstacle(name, np.asarray(low, dtype=float), np.asarray(high, dtype=float), base_frame)
        self._allocate_results()
        self.pairs = tuple(sorted({self._names(pair) for pair in self._geometry.collisionPairs}))

    def set_joints(self, positions: Mapping[str, float]) -> None:
        """Set joints outside the arm (the other arm, the fingers) to `positions`, rad or m by name."""
        for name, value in positions.items():
            column = self._column(name)
            if column in self._columns:
                raise InputError(f"other joints: {name!r} belongs to the arm")
            self._q[column] = value

    def has_joint(self, joint: str) -> bool:
        """True where the description has a joint of that name."""
        return self._model.existJointName(joint)

    def distance(self, q: np.ndarray) -> float:
        """Return the smallest distance in m of all pairs at q (J,) rad, negative in an overlap; inf without pairs."""
        index = self._compute(q)
        return self._results[index].min_distance if self.pairs else np.inf

    def distances(self, q: np.ndarray) -> np.ndarray:
        """Return the smallest distances (N,) in m at joint positions q (N, J) rad."""
        return np.array([self.distance(row) for row in np.atleast_2d(q)])

    def find_closest_pair(self, q: np.ndarray, *, obstacles: bool = True) -> tuple[float, str, str]:
        """Return the smallest distance in m at q (J,) rad and its two links; obstacles=False leaves obstacles out."""
        index = self._compute(q)
        count = len(self._results) if obstacles else self._own
        if not count:
            return np.inf, "", ""
        if index >= count:
            index = min(range(count), key=lambda i: self._results[i].min_distance)
        return self._results[index].min_distance, *self._names(self._geometry.collisionPairs[index])

    def _compute(self, q: np.ndarray) -> int:
        """Compute the distances of all pairs at q (J,) rad; return the index of the closest pair."""
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
        """Add a box, and its pairs with everything that the arm's joints move relative to it."""
        if base_frame is not None and not self._model.existBodyName(base_frame):
            raise InputError(f"robot_description: expected a link {base_frame!r}, found none")
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

    def _choose_pairs(self, parents: dict[str, str], ignored: set, reference: np.ndarray) -> dict:
        """Add the pairs to check; return those left out, by name, with the reason."""
        left_out = {}
        moved = [self._moved_by(shape.parentJoint) for shape in self._geometry.geometryObjects]
        above = {link: _ancestors(link, parents) for link in self._links}
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
        self._allocate_results()
        self._compute(reference)
        near = [(p.first, p.second) for p, result in self._pair_results() if result.min_distance < CLOSE_BY_DESIGN]
        left_out |= self._remove(near, "near by construction")
        joints = {(p.first, p.second): moved[p.first] ^ moved[p.second] for p in self._geometry.collisionPairs}
        chained = {pair: j for pair, j in joints.items() if len(j) == 2 and self._in_line(*pair, above)}
        smallest = self._smallest_distances(chained, reference)
        apart = [pair for pair, distance in smallest.items() if distance > -CLOSE_BY_DESIGN]
        return left_out | self._remove(apart, "never")

    def _in_line(self, a: int, b: int, above: dict[str, set[str]]) -> bool:
        return self._links[a] in above[self._links[b]] or self._links[b] in above[self._links[a]]

    def _smallest_distances(self, pairs: dict[tuple, frozenset[int]], reference: np.ndarray) -> dict[tuple, float]:
        """Return the smallest distance in m of each pair over the ranges of the two joints that it depends on."""
        least = dict.fromkeys(pairs, np.inf)
        for two in set(pairs.values()):
            columns = [self.joints.index(self._model.names[joint]) for joint in two]
            results = {(p.first, p.second): r for p, r in self._pair_results() if pairs.get((p.first, p.second)) == two}
            for values in itertools.product(*(np.linspace(*self._range(c), RANGE_SAMPLES) for c in columns)):
                q = np.array(reference, dtype=float)
                q[columns] = values
                self._compute(q)
                least |= {pair: min(least[pair], result.min_distance) for pair, result in results.items()}
        return least

    def _range(self, joint: int) -> tuple[float, float]:
        """Return the range of one of the arm's joints in rad; one turn where it has no limits."""
        column = self._columns[joint]
        low, high = self._model.lowerPositionLimit[column], self._model.upperPositionLimit[column]
        return max(low, -np.pi) if high > -np.pi else low, min(high, np.pi) if low < np.pi else high

    def _remove(self, pairs: list[tuple[int, int]], why: str) -> dict:
        for a, b in pairs:
            self._geometry.removeCollisionPair(pin.CollisionPair(a, b))
        self._allocate_results()
        return {(self._links[a], self._links[b]): why for a, b in pairs}

    def _pair_results(self) -> Iterable[tuple[pin.CollisionPair, coal.DistanceResult]]:
        return zip(self._geometry.collisionPairs, self._results, strict=True)

    def _allocate_results(self) -> None:
        self._distances = pin.GeometryData(self._geometry)
        self._results = self._distances.distanceResults

    def _names(self, pair: pin.CollisionPair) -> tuple[str, str]:
        return self._links[pair.first], self._links[pair.second]

    def _moved_by(self, joint: int) -> frozenset[int]:
        """Return the arm's joints that move what is attached to `joint`."""
        own = {self._model.getJointId(name) for name in self.joints}
        return frozenset(own & set(self._model.supports[joint]))

    def _check_ignored(self, ignore: Iterable[Sequence[str]]) -> set[frozenset[str]]:
        pairs = set()
        for pair in ignore:
            if isinstance(pair, str) or len(pair) != 2:
                raise InputError(f"self_collision ignore: expected pairs of links, found {pair!r}")
            for link in pair:
                if not self._model.existBodyName(link):
                    raise InputError(f"self_collision ignore: expected links of the robot, found {link!r}")
            pairs.add(frozenset(pair))
        return pairs


def _ancestors(link: str, parents: dict[str, str]) -> set[str]:
    """Return all links from the parent of `link` up to the root."""
    found: set[str] = set()
    while link in parents and parents[link] not in found:
        link = parents[link]
        found.add(link)
    return found


def compute_levers(model: pin.Model, joints: Sequence[str], frame: str, extent: float = 0.0) -> np.ndarray:
    """Return levers (J,) in m: no point within `extent` m of a frame moves further than levers @ |change of q|.

    The lever of a revolute joint is the stretched length of the chain between joint and point; that of a prismatic
    joint is 1.
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

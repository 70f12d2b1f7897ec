"""Collision shapes of a robot's links: read from the collision elements of its URDF, or capsules around meshes."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pinocchio as pin
from scipy.optimize import minimize
from scipy.spatial import ConvexHull, QhullError

from jepa_ros.errors import InputError

try:
    import coal
except ImportError:  # the name before Pinocchio 3.4
    import hppfcl as coal

GUESSED_RADIUS = 0.05  # m of a link whose shape the description does not give
MAX_EVALUATIONS = 120  # of the search for the axis of the smallest capsule


@dataclass(frozen=True)
class Shape:
    """One shape of a link. position (3,) m and rotation (3, 3) are in the link's frame.

    radius, length: of a capsule along z, the length without its caps, m. sides: (3,) m of a box; None: a capsule.
    """

    link: str
    position: np.ndarray
    rotation: np.ndarray
    radius: float = 0.0
    length: float = 0.0
    sides: np.ndarray | None = None

    def geometry(self, inflate: float = 0.0):
        """Return the shape for coal, surfaces moved outward by `inflate` m (corners of a box move further)."""
        if self.sides is not None:
            return coal.Box(*(self.sides + 2 * inflate))
        if self.length < 1e-9:
            return coal.Sphere(self.radius + inflate)
        return coal.Capsule(self.radius + inflate, self.length)

    @property
    def extent(self) -> float:
        """Upper bound of the distance in m from the link frame's origin to the shape's farthest point."""
        half = np.linalg.norm(self.sides) / 2 if self.sides is not None else self.radius + self.length / 2
        return float(np.linalg.norm(self.position) + half)


def link_shapes(urdf: str) -> tuple[list[Shape], tuple[str, ...]]:
    """Return the shapes of all links of a URDF, and the links whose shapes had to be guessed.

    A cylinder becomes the capsule that encloses it: same radius, same length between the caps' centres (URDF has no
    capsule, so one is written like that, too). Spheres and boxes are kept. A mesh file that can be read (file://, a
    path, or package:// along AMENT_PREFIX_PATH) becomes its enclosing capsule. A link with mass or visual but without a
    readable shape is guessed: capsules of GUESSED_RADIUS from its origin to those of its child joints, or to its centre
    of mass without any. Links without mass and visual are frames only.

    Raises InputError where a shape's numbers are invalid.
    """
    root = ElementTree.fromstring(urdf)
    shapes: list[Shape] = []
    guessed: list[str] = []
    for link in root.findall("link"):
        name = link.get("name", "")
        elements = link.findall("collision")
        read = [shape for shape in (_shape(name, element) for element in elements) if shape is not None]
        is_body = link.find("inertial") is not None or link.find("visual") is not None
        if len(read) < len(elements) or (not elements and is_body):
            guess = _guess(root, link)
            guessed += [name] if guess else []
            read += guess
        shapes += read
    return shapes, tuple(guessed)


def _shape(link: str, element: ElementTree.Element) -> Shape | None:
    """Return the shape of one collision element; None where it cannot be read."""
    position, rotation = _pose(link, element.find("origin"))
    geometry = element.find("geometry")
    kind = next(iter(geometry), None) if geometry is not None else None
    if kind is None:
        return None
    if kind.tag in ("cylinder", "capsule"):
        return Shape(link, position, rotation, _number(link, kind, "radius"), _number(link, kind, "length"))
    if kind.tag == "sphere":
        return Shape(link, position, rotation, _number(link, kind, "radius"))
    if kind.tag == "box":
        return Shape(link, position, rotation, sides=_triple(link, kind, "size", None))
    points = _mesh_points(kind, _triple(link, kind, "scale", (1.0, 1.0, 1.0))) if kind.tag == "mesh" else None
    if points is None:
        return None
    return _placed(link, enclosing_capsule(points @ rotation.T + position))


def _placed(link: str, capsule: Capsule) -> Shape:
    position, rotation, length = capsule.placement
    return Shape(link, position, rotation, capsule.radius, length)


def _guess(root: ElementTree.Element, link: ElementTree.Element) -> list[Shape]:
    name = link.get("name", "")
    children = [joint for joint in root.findall("joint") if _linked(joint, "parent") == name]
    ends = [_pose(name, joint.find("origin"))[0] for joint in children]
    inertial = link.find("inertial")
    if not ends and inertial is not None:
        ends = [_pose(name, inertial.find("origin"))[0]]
    return [_placed(name, Capsule(np.zeros(3), end, GUESSED_RADIUS)) for end in ends]


def _linked(joint: ElementTree.Element, side: str) -> str | None:
    """Return the parent or child link of a joint element."""
    element = joint.find(side)
    return None if element is None else element.get("link")


def parent_links(urdf: str) -> dict[str, str]:
    """Return the parent of every link, by a joint of any type."""
    joints = ElementTree.fromstring(urdf).findall("joint")
    linked = [(_linked(joint, "child"), _linked(joint, "parent")) for joint in joints]
    return {child: parent for child, parent in linked if child is not None and parent is not None}


def _mesh_points(mesh: ElementTree.Element, scale: np.ndarray) -> np.ndarray | None:
    """Return the vertices (N, 3) m of a mesh element's file; None where it is not found or unreadable."""
    path = _mesh_path(mesh.get("filename", ""))
    if path is None:
        return None
    try:
        points = np.array(coal.MeshLoader().load(str(path), np.asarray(scale)).vertices())
    except (RuntimeError, ValueError):  # raised by the loader for a file that is not a mesh
        return None
    return points if len(points) else None


def _mesh_path(name: str) -> Path | None:
    """Return the file if it belongs to an installed package: a description is received over the network and must not
    open other files."""
    shares = [Path(prefix, "share") for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    scheme, _, rest = name.rpartition("://")
    candidates = [s / rest for s in shares] if scheme == "package" else [Path(rest)] if scheme in ("", "file") else []
    inside = (Path(os.path.normpath(candidate)) for candidate in candidates)
    return next((c for c in inside if any(c.is_relative_to(share) for share in shares) and c.is_file()), None)


def _pose(link: str, origin: ElementTree.Element | None) -> tuple[np.ndarray, np.ndarray]:
    """Return position (3,) m and rotation (3, 3) of an origin element; the identity without one."""
    if origin is None:
        return np.zeros(3), np.eye(3)
    none = (0.0, 0.0, 0.0)
    return _triple(link, origin, "xyz", none), pin.rpy.rpyToMatrix(_triple(link, origin, "rpy", none))


def _triple(link: str, element: ElementTree.Element, key: str, default: Sequence[float] | None) -> np.ndarray:
    text = element.get(key)
    if text is None and default is not None:
        return np.array(default, dtype=float)
    try:
        values = np.array((text or "").split(), dtype=float)
    except ValueError:
        values = np.zeros(0)
    if values.shape != (3,) or not np.isfinite(values).all():
        raise InputError(f"robot_description: link {link}: expected three numbers for {key}, found {text!r}")
    return values


def _number(link: str, element: ElementTree.Element, key: str) -> float:
    try:
        value = float(element.get(key, ""))
    except ValueError:
        value = -1.0
    if not 0 <= value < np.inf:
        found = element.get(key)
        raise InputError(f"robot_description: link {link}: expected a {key} of 0 m or more, found {found!r}")
    return value


# -- capsules ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Capsule:
    """All points within `radius` m of the segment from start (3,) to end (3,) m; a sphere where they are equal."""

    start: np.ndarray
    end: np.ndarray
    radius: float

    @property
    def volume(self) -> float:
        """Volume in m^3."""
        return float(np.pi * self.radius**2 * (np.linalg.norm(self.end - self.start) + 4 / 3 * self.radius))

    @property
    def placement(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Centre (3,) m, rotation (3, 3) whose z axis is the capsule's, and length m of the segment."""
        along = self.end - self.start
        length = float(np.linalg.norm(along))
        axis = along / length if length > 1e-9 else np.array([0.0, 0.0, 1.0])
        side, up = _across(axis)
        return 0.5 * (self.start + self.end), np.column_stack([side, up, axis]), length


def enclosing_capsule(points: np.ndarray) -> Capsule:
    """Return a capsule around all points (N, 3) m whose volume is close to the smallest; it encloses them exactly.

    Starts with the best of the principal and the coordinate axes, and improves axis and offset by the Nelder-Mead
    method. For an axis and an offset, radius and ends follow from the points (see _around). Raises InputError where
    there are no points or one is not finite.
    """
    points = np.asarray(points, dtype=float)
    if points.ndim != 2 or points.shape[1] != 3 or not len(points):
        raise InputError(f"capsule: expected points (N, 3), found shape {points.shape}")
    if not np.isfinite(points).all():
        raise InputError("capsule: expected finite points, found NaN or Inf")
    try:
        points = points[ConvexHull(points).vertices]
    except QhullError:  # flat
        pass
    middle = points - points.mean(0)
    principal = np.linalg.eigh(middle.T @ middle)[1].T
    starts = [_around(points, axis, _middle(points, axis)) for axis in np.vstack([principal, np.eye(3)])]
    first = min(starts, key=lambda capsule: capsule.volume)
    centre, rotation, _ = first.placement
    size = max(first.radius, 1e-6)

    def at(x: np.ndarray) -> Capsule:
        axis = rotation @ np.array([x[0], x[1], 1.0])
        offset = centre + rotation[:, :2] @ (x[2:] * size)
        return _around(points, axis / np.linalg.norm(axis), offset)

    simplex = np.vstack([np.zeros(4), 0.15 * np.eye(4)])
    found = minimize(
        lambda x: at(x).volume,
        np.zeros(4),
        method="Nelder-Mead",
        options={"maxfev": MAX_EVALUATIONS, "initial_simplex": simplex, "fatol": 0.0, "xatol": 1e-4},
    )
    return min((first, at(found.x)), key=lambda capsule: capsule.volume)


def _around(points: np.ndarray, axis: np.ndarray, offset: np.ndarray) -> Capsule:
    """Return the shortest capsule around points (N, 3) with its axis (3,) of length 1 through `offset` (3,).

    A point at t along the axis, at distance e from it, is covered if the segment ends at t - sqrt(r^2 - e^2) or later
    and begins at t + sqrt(r^2 - e^2) or earlier.
    """
    relative = points - offset
    along = relative @ axis
    away = relative - along[:, None] * axis  # not by Pythagoras, which loses half the digits near the axis
    beside = np.sqrt(np.einsum("ij,ij->i", away, away))
    radius = float(beside.max()) * (1 + 1e-9)
    cap = np.sqrt(np.maximum(radius * radius - beside * beside, 0.0))
    low, high = float((along + cap).min()), float((along - cap).max())
    if high < low:  # one sphere covers all
        low = high = 0.5 * (low + high)
    return Capsule(offset + low * axis, offset + high * axis, radius)


def _middle(points: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Return the middle (3,) of the points' extent perpendicular to the axis."""
    basis = np.stack(_across(axis))
    spread = points @ basis.T
    return 0.5 * (spread.min(0) + spread.max(0)) @ basis


def _across(axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two unit vectors (3,) that form a right-handed frame with `axis` as its z."""
    side = np.cross(np.eye(3)[int(np.abs(axis).argmin())], axis)
    side /= np.linalg.norm(side)
    return side, np.cross(axis, side)

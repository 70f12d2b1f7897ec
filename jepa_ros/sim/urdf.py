"""URDF of a compiled MuJoCo model, so that simulation, kinematics and gate use one description."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import mujoco
import numpy as np

from jepa_ros.robot.collision.shapes import enclosing_capsule

COLLISION_GROUP = 3  # of the geoms used for contacts
BOXES, SLICES = 4, 32  # boxes that replace the pedestal, and slices that they are merged from


def urdf_from_mujoco(
    model: mujoco.MjModel,
    *,
    name: str,
    prefix: str,
    velocity_limits: dict[str, float],
    sites: dict[str, str],
) -> str:
    """Return the URDF of all bodies whose name starts with `prefix`, with the root link `world`.

    Link frames are the body frames, at the joint's anchor where there is a joint. velocity_limits: rad/s of each joint;
    effort limits are the servos' force ranges in N m. sites: MuJoCo site → name of the link fixed there. A joint
    tied to another by an equality constraint becomes a mimic joint.

    Collision elements enclose the collision meshes. Each body gets one cylinder, to be read as a capsule, which URDF
    lacks: its length is the distance of the centres of the two hemispheres. The pedestal (plate, pole and head), which
    belongs to the world, becomes a stack of boxes: MuJoCo's convex hull also fills the space between plate and head.
    """
    robot = ET.Element("robot", name=name)
    _add_boxes(ET.SubElement(robot, "link", name="world"), model, prefix)
    mimics = _find_mimics(model)
    anchors = {0: np.zeros(3)}
    for body in range(1, model.nbody):
        if not model.body(body).name.startswith(prefix):
            continue
        joint = model.body_jntadr[body] if model.body_jntnum[body] else None
        anchors[body] = model.jnt_pos[joint].copy() if joint is not None else np.zeros(3)
        _add_link(robot, model, body, anchors[body])
        _add_joint(robot, model, body, joint, anchors, velocity_limits, mimics)
    for site, link in sites.items():
        body = int(model.site(site).bodyid[0])
        ET.SubElement(robot, "link", name=link)
        element = ET.SubElement(robot, "joint", name=f"{link}_fixed", type="fixed")
        ET.SubElement(element, "parent", link=model.body(body).name)
        ET.SubElement(element, "child", link=link)
        add_origin(element, model.site(site).pos - anchors[body], model.site(site).quat)
    ET.indent(robot)
    return ET.tostring(robot, encoding="unicode")


def _find_mimics(model: mujoco.MjModel) -> dict[int, tuple[str, float]]:
    """Return joint index → (the joint that it follows, factor), from the joint equalities."""
    found = {}
    for eq in range(model.neq):
        if model.eq_type[eq] == mujoco.mjtEq.mjEQ_JOINT and model.eq_obj2id[eq] >= 0:
            found[int(model.eq_obj2id[eq])] = (model.joint(model.eq_obj1id[eq]).name, 1.0 / model.eq_data[eq][1])
    return found


def _add_link(robot: ET.Element, model: mujoco.MjModel, body: int, anchor: np.ndarray) -> None:
    link = ET.SubElement(robot, "link", name=model.body(body).name)
    inertial = ET.SubElement(link, "inertial")
    add_origin(inertial, model.body_ipos[body] - anchor, model.body_iquat[body])
    ET.SubElement(inertial, "mass", value=f"{model.body_mass[body]:.9g}")
    xx, yy, zz = (f"{v:.9g}" for v in model.body_inertia[body])
    ET.SubElement(inertial, "inertia", ixx=xx, iyy=yy, izz=zz, ixy="0", ixz="0", iyz="0")
    meshes = _collision_meshes(model, body)
    if not meshes:
        return
    capsule = enclosing_capsule(np.vstack([_vertices(model, geom) for geom in meshes.values()]) - anchor)
    centre, rotation, length = capsule.placement
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, rotation.ravel())
    geometry = _add_collision(link, model.body(body).name, centre, quaternion)
    ET.SubElement(geometry, "cylinder", radius=f"{capsule.radius:.6g}", length=f"{length:.6g}")


def _add_boxes(link: ET.Element, model: mujoco.MjModel, prefix: str) -> None:
    """Add the world's own collision meshes whose names start with `prefix`, each as a stack of boxes."""
    for name, geom in _collision_meshes(model, 0).items():
        if not name.startswith(prefix):
            continue
        for i, (low, high) in enumerate(_stack_boxes(_vertices(model, geom)[_faces(model, geom)])):
            geometry = _add_collision(link, f"{name}_{i}", 0.5 * (low + high), np.array([1.0, 0, 0, 0]))
            ET.SubElement(geometry, "box", size=numbers(high - low))


def _stack_boxes(triangles: np.ndarray) -> list[np.ndarray]:
    """Return BOXES boxes (2, 3), lowest and highest corner in m, stacked around a surface (N, 3 corners, 3).

    Starts with thin slices and merges the two neighbours whose merged box adds the least volume, until BOXES are left.
    """
    heights = np.linspace(triangles[..., 2].min(), triangles[..., 2].max(), SLICES + 1)
    pieces = [_clip_between(triangles, low, high) for low, high in zip(heights[:-1], heights[1:], strict=True)]
    boxes = [np.stack([piece.min(0), piece.max(0)]) for piece in pieces if len(piece)]
    while len(boxes) > BOXES:
        neighbours = list(zip(boxes[:-1], boxes[1:], strict=True))
        joined = [np.stack([np.minimum(a[0], b[0]), np.maximum(a[1], b[1])]) for a, b in neighbours]
        grown = [_volume(j) - _volume(a) - _volume(b) for j, (a, b) in zip(joined, neighbours, strict=True)]
        k = int(np.argmin(grown))
        boxes[k : k + 2] = [joined[k]]
    return boxes


def _volume(box: np.ndarray) -> float:
    return float(np.prod(box[1] - box[0]))


def _clip_between(triangles: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the corners (N, 3) of the parts of triangles (M, 3, 3) between two heights in m."""
    a, b = triangles.reshape(-1, 3), np.roll(triangles, -1, axis=1).reshape(-1, 3)
    kept = [a[(a[:, 2] >= low) & (a[:, 2] <= high)]]
    for height in (low, high):
        crossing = (a[:, 2] - height) * (b[:, 2] - height) < 0
        s = (height - a[crossing, 2]) / (b[crossing, 2] - a[crossing, 2])
        kept.append(a[crossing] + s[:, None] * (b[crossing] - a[crossing]))
    return np.vstack(kept)


def _collision_meshes(model: mujoco.MjModel, body: int) -> dict[str, int]:
    """Return name → index of the body's collision meshes."""
    geoms = range(model.body_geomadr[body], model.body_geomadr[body] + model.body_geomnum[body])
    meshes = [g for g in geoms if model.geom_type[g] == mujoco.mjtGeom.mjGEOM_MESH]
    return {model.geom(g).name: g for g in meshes if model.geom_group[g] == COLLISION_GROUP}


def _vertices(model: mujoco.MjModel, geom: int) -> np.ndarray:
    """Return the vertices (N, 3) m of a geom's mesh in its body's frame."""
    mesh, matrix = int(model.geom_dataid[geom]), np.zeros(9)
    first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    mujoco.mju_quat2Mat(matrix, model.geom_quat[geom])
    return model.mesh_vert[first : first + count] @ matrix.reshape(3, 3).T + model.geom_pos[geom]


def _faces(model: mujoco.MjModel, geom: int) -> np.ndarray:
    """Return the triangles (M, 3) of a geom's mesh, as indices of its vertices."""
    mesh = int(model.geom_dataid[geom])
    first, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    return model.mesh_face[first : first + count]


def _add_collision(link: ET.Element, name: str, position: np.ndarray, quaternion: np.ndarray) -> ET.Element:
    """Add a collision element at position (3,) m and quaternion (4,) wxyz in the link; return its geometry element."""
    collision = ET.SubElement(link, "collision", name=name)
    add_origin(collision, position, quaternion)
    return ET.SubElement(collision, "geometry")


def _add_joint(robot, model, body, joint, anchors, velocity_limits, mimics) -> None:
    parent = int(model.body_parentid[body])
    kind = "fixed" if joint is None else "revolute"
    name = f"{model.body(body).name}_fixed" if joint is None else model.joint(joint).name
    element = ET.SubElement(robot, "joint", name=name, type=kind)
    ET.SubElement(element, "parent", link=model.body(parent).name)
    ET.SubElement(element, "child", link=model.body(body).name)
    rotated = np.zeros(3)
    mujoco.mju_rotVecQuat(rotated, anchors[body], model.body_quat[body])
    add_origin(element, model.body_pos[body] + rotated - anchors[parent], model.body_quat[body])
    if joint is None:
        return
    ET.SubElement(element, "axis", xyz=numbers(model.jnt_axis[joint]))
    lower, upper = model.jnt_range[joint]
    actuators = [a for a in range(model.nu) if model.actuator_trnid[a, 0] == joint]
    effort = float(model.actuator_forcerange[actuators[0], 1]) if actuators else 0.0
    limit = {"lower": lower, "upper": upper, "effort": effort, "velocity": velocity_limits.get(name, 0.0)}
    ET.SubElement(element, "limit", {k: f"{v:.9g}" for k, v in limit.items()})
    if joint in mimics:
        leader, factor = mimics[joint]
        ET.SubElement(element, "mimic", joint=leader, multiplier=f"{factor:.9g}", offset="0")


def add_origin(element: ET.Element, position: np.ndarray, quaternion: np.ndarray) -> None:
    """Add URDF's origin: position (3,) m and quaternion (4,) wxyz."""
    ET.SubElement(element, "origin", xyz=numbers(position), rpy=numbers(roll_pitch_yaw(quaternion)))


def roll_pitch_yaw(quaternion: np.ndarray) -> tuple[float, float, float]:
    """Return the rotation of a quaternion (4,) wxyz in rad about the fixed axes x, y, z, as in URDF and SDF."""
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, np.asarray(quaternion, dtype=float))
    r = matrix.reshape(3, 3)
    pitch = np.arctan2(-r[2, 0], np.hypot(r[0, 0], r[1, 0]))
    if np.hypot(r[0, 0], r[1, 0]) < 1e-9:
        return np.arctan2(-r[1, 2], r[1, 1]), pitch, 0.0
    return np.arctan2(r[2, 1], r[2, 2]), pitch, np.arctan2(r[1, 0], r[0, 0])


def numbers(values) -> str:
    """Format numbers as in URDF and SDF, -0 as 0."""
    return " ".join(f"{float(v) + 0.0:.9g}" for v in values)

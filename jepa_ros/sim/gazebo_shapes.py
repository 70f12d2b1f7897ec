"""Shapes of the MuJoCo scene for Gazebo: what is drawn and collided with, as meshes and SDF elements."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import mujoco
import numpy as np

from jepa_ros.sim.urdf import numbers, roll_pitch_yaw

Hulls = Mapping[int, Path]
"""Geom index → STL file of its convex hull."""
SITE_GROUPS = 3  # sites of groups 0 to 2 are drawn
FLOOR_SIZE = 10.0  # m; MuJoCo's is endless
_STL = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def write_hulls(model: mujoco.MjModel, folder: Path) -> dict[int, Path]:
    """Write the convex hull of every mesh geom as an STL file (m, in the mesh's frame); returns geom → file.

    MuJoCo draws and collides with these hulls, not with the meshes themselves.
    """
    files = {}
    for geom in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_MESH).tolist():
        corners = hull_triangles(model, geom)
        triangles = np.zeros(len(corners), _STL)
        triangles["corners"] = corners
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        triangles["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        files[geom] = folder / f"{model.geom(geom).name}.stl"
        header = b"binary STL, m".ljust(80) + np.uint32(len(corners)).tobytes()
        files[geom].write_bytes(header + triangles.tobytes())
    return files


def hull_triangles(model: mujoco.MjModel, geom: int) -> np.ndarray:
    """Triangles (N, 3 corners, 3) m of the convex hull of a geom's mesh, in the mesh's frame, facing outward."""
    mesh = int(model.geom_dataid[geom])
    first, graph = int(model.mesh_vertadr[mesh]), int(model.mesh_graphadr[mesh])
    # MuJoCo's documentation of mjModel.mesh_graph: numvert, numface, vert_edgeadr[numvert], vert_globalid[numvert],
    # edge_localid[numvert + 3 numface], face_globalid[3 numface].
    vertices, faces = model.mesh_graph[graph : graph + 2]
    start = graph + 2 + 3 * vertices + 3 * faces
    indices = model.mesh_graph[start : start + 3 * faces].reshape(-1, 3)
    return model.mesh_vert[first + indices].astype(float)


def mesh_uri(path: Path) -> str:
    """How SDF and URDF name a file. Their readers cut the scheme off and take the rest as it is, undecoded."""
    return f"file://{path.resolve()}"


def add_text(parent: ET.Element, tag: str, value: object, /, **attributes: str) -> ET.Element:
    """An element with text: numbers as SDF writes them, booleans as true or false."""
    element = ET.SubElement(parent, tag, attributes)
    if isinstance(value, bool):
        element.text = str(value).lower()
    else:
        element.text = value if isinstance(value, str) else numbers(np.atleast_1d(value))
    return element


def add_pose(parent: ET.Element, position: np.ndarray, quaternion: np.ndarray) -> None:
    """SDF's pose: a position (3,) m and a quaternion (4,) wxyz."""
    add_text(parent, "pose", [*position, *roll_pitch_yaw(quaternion)])


def colour(values: np.ndarray) -> list[float]:
    """Red, green and blue of values (3 or 4,), and no transparency; MuJoCo's single precision shows no digits more."""
    return [*np.round(np.asarray(values[:3], dtype=float), 6).tolist(), 1.0]


def drawn_sites(model: mujoco.MjModel, body: int) -> list[int]:
    """Sites of a body that MuJoCo draws by default."""
    return [s for s in range(model.nsite) if model.site_bodyid[s] == body and model.site_group[s] < SITE_GROUPS]


def add_geom(link: ET.Element, model: mujoco.MjModel, geom: int, hulls: Hulls, *, solid: bool = True) -> None:
    """A geom as SDF's visual and, where solid, collision in the link of its body."""
    name = model.geom(geom).name
    place = model.geom_pos[geom], model.geom_quat[geom]
    for kind in ("collision", "visual") if solid else ("visual",):
        element = ET.SubElement(link, kind, name=name if kind == "visual" else f"{name}_collision")
        add_pose(element, *place)
        geometry = ET.SubElement(element, "geometry")
        if geom in hulls:
            add_text(ET.SubElement(geometry, "mesh"), "uri", mesh_uri(hulls[geom]))
        else:
            _add_primitive(geometry, model.geom_type[geom], model.geom_size[geom])
        if kind == "visual":
            _add_material(element, model.geom_rgba[geom])
        else:
            friction = ET.SubElement(ET.SubElement(ET.SubElement(element, "surface"), "friction"), "ode")
            add_text(friction, "mu", model.geom_friction[geom, 0])
            add_text(friction, "mu2", model.geom_friction[geom, 0])


def add_site(link: ET.Element, model: mujoco.MjModel, site: int) -> None:
    """A site as SDF's visual in the link of its body: nothing collides with it."""
    visual = ET.SubElement(link, "visual", name=model.site(site).name)
    add_pose(visual, model.site_pos[site], model.site_quat[site])
    _add_primitive(ET.SubElement(visual, "geometry"), model.site_type[site], model.site_size[site])
    _add_material(visual, model.site_rgba[site])


def _add_primitive(geometry: ET.Element, kind: int, size: np.ndarray) -> None:
    """MuJoCo gives half sizes, SDF whole ones. Raises KeyError for a shape that the scene does not have."""
    named = {
        mujoco.mjtGeom.mjGEOM_PLANE: ("plane", {"normal": [0, 0, 1], "size": [FLOOR_SIZE, FLOOR_SIZE]}),
        mujoco.mjtGeom.mjGEOM_BOX: ("box", {"size": 2 * size}),
        mujoco.mjtGeom.mjGEOM_SPHERE: ("sphere", {"radius": size[0]}),
        mujoco.mjtGeom.mjGEOM_CYLINDER: ("cylinder", {"radius": size[0], "length": 2 * size[1]}),
    }
    name, values = named[mujoco.mjtGeom(kind)]
    element = ET.SubElement(geometry, name)
    for key, value in values.items():
        add_text(element, key, value)


def _add_material(visual: ET.Element, rgba: np.ndarray) -> None:
    """Colour (4,) rgba; SDF draws see-through by an element of its own."""
    add_text(visual, "cast_shadows", False)
    if rgba[3] < 1:
        add_text(visual, "transparency", round(1.0 - float(rgba[3]), 6))
    material = ET.SubElement(visual, "material")
    for key in ("ambient", "diffuse"):
        add_text(material, key, colour(rgba))

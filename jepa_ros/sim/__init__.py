"""The simulated cell: MuJoCo scene, controller, tasks, and export to URDF and Gazebo. Without ROS.

cell.py joins scene, gate and controller in simulated time for data collection and evaluation; the simulator node uses
scene and controller. Tasks are in tasks/, behind the protocol in task.py. Start reading in scene.py.
"""

import ctypes.util
import os
import sys

from jepa_ros.errors import InputError

BACKENDS = ("egl", "osmesa", "glfw")
"""Values of MUJOCO_GL."""


def prepare_opengl() -> None:
    """Select off-screen rendering on one core, unless the user chose otherwise. Call it before mujoco is imported.

    EGL if its library is installed, else OSMesa. Mesa's software renderer would use every core. Raises InputError for a
    MUJOCO_GL that MuJoCo does not know.
    """
    chosen = os.environ.get("MUJOCO_GL", "")
    if chosen and chosen.lower().strip() not in BACKENDS:
        raise InputError(f"MUJOCO_GL={chosen}: expected one of {', '.join(BACKENDS)}, or unset")
    if not chosen:
        osmesa_only = not ctypes.util.find_library("EGL") and ctypes.util.find_library("OSMesa")
        os.environ["MUJOCO_GL"] = "osmesa" if osmesa_only else "egl"
    os.environ.setdefault("LP_NUM_THREADS", "1")
    # Mesa and triton (imported by torch's CUDA builds) each bring their own LLVM, and the second one that is loaded
    # crashes the process. torch works without triton where it cannot be imported.
    sys.modules.setdefault("triton", None)


prepare_opengl()  # before any module of this package imports mujoco

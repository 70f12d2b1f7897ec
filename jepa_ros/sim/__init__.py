"""The simulated cell: MuJoCo scenes and tasks."""

import ctypes.util
import os
import sys


def prepare_opengl() -> None:
    """Off-screen drawing on one core, unless the user chose otherwise. Call it before mujoco or torch is imported.

    EGL where its library is there, else OSMesa. Mesa's software renderer takes every core unless told otherwise, and
    starves whatever runs beside it.
    """
    if not os.environ.get("MUJOCO_GL"):
        osmesa_only = not ctypes.util.find_library("EGL") and ctypes.util.find_library("OSMesa")
        os.environ["MUJOCO_GL"] = "osmesa" if osmesa_only else "egl"
    os.environ.setdefault("LP_NUM_THREADS", "1")
    # Mesa and triton (which torch's CUDA builds import for their optimisers) each bring an LLVM of their own, and the
    # second one to be loaded crashes the process. torch does without triton where it cannot be imported.
    sys.modules.setdefault("triton", None)


prepare_opengl()  # before any module of this package imports mujoco

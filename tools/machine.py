"""System packages and the ROS distribution of this machine (standard library only)."""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path

WHEELS = "wheels"
DISTRIBUTION = "distribution"

# (name, kind, Debian package that contains it). MuJoCo renders without a screen through EGL; PyOpenGL, which it loads,
# needs a GL library as well.
NEEDS = (
    ("cmake", "command", "cmake"),
    ("g++", "command", "g++"),
    ("make", "command", "make"),
    ("libEGL.so.1", "library", "libegl1"),
    ("libEGL_mesa.so.0", "library", "libegl-mesa0"),
    ("libGL.so.1", "library", "libgl1"),
    ("libOpenGL.so.0", "library", "libopengl0"),
    ("Python.h", "header", "python3-dev"),
    ("ensurepip", "module", "python3-venv"),
)


class SetupError(Exception):
    """Set-up cannot continue; the text is one line."""


def present(name: str, kind: str) -> bool:
    """Return whether this machine has a command or library, or this Python a header or module."""
    if kind == "command":
        return shutil.which(name) is not None
    if kind == "header":
        return Path(sysconfig.get_paths()["include"], name).is_file()
    if kind == "module":
        return importlib.util.find_spec(name) is not None
    try:
        ctypes.CDLL(name)
    except OSError:
        # A vendor's own EGL serves as well as Mesa's.
        return name == "libEGL_mesa.so.0" and bool(list(Path("/usr/share/glvnd/egl_vendor.d").glob("*.json")))
    return True


def missing_packages(has: Callable[[str, str], bool] = present) -> list[str]:
    """Return the Debian packages to install, in the order of NEEDS."""
    return [package for name, kind, package in NEEDS if not has(name, kind)]


def install_command(packages: list[str], root: bool) -> str:
    """Return the command that installs `packages`."""
    sudo = "" if root else "sudo "
    return f"{sudo}apt-get update && {sudo}apt-get install -y --no-install-recommends {' '.join(packages)}"


def ensure_system_packages(report: Callable[[str], None]) -> None:
    """Install missing packages if run as root; otherwise raise SetupError with the command that does."""
    packages = missing_packages()
    if not packages:
        return
    root = os.geteuid() == 0
    command = install_command(packages, root)
    if shutil.which("apt-get") is None:
        names = " ".join(packages)
        raise SetupError(f"system packages: expected (by Debian's names) {names}, found no apt-get to add them")
    if not root:
        raise SetupError(f"system packages are missing; install them with: {command}")
    report(f"installing {' '.join(packages)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=environment)
    left = missing_packages()
    if left:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SetupError(f"system packages: {' '.join(left)} still missing after '{command}': {last}")


def choose_ros(environment: Mapping[str, str], importable: Callable[[str], bool]) -> str:
    """Return DISTRIBUTION if one is sourced, else WHEELS.

    Raises SetupError if a distribution is sourced whose rclpy this Python cannot import: its variables would mix with
    the wheels, and neither would work.
    """
    distribution = environment.get("ROS_DISTRO", "")
    if not distribution:
        return WHEELS
    if importable("rclpy"):
        return DISTRIBUTION
    raise SetupError(
        f"ROS_DISTRO={distribution} is set: expected a Python 3.10 to 3.12 that imports its rclpy, found none; "
        "name it with PYTHON=..., or use a shell in which no distribution is sourced"
    )


def can_import(module: str) -> bool:
    """Return whether this Python finds the module."""
    return importlib.util.find_spec(module) is not None

"""Start-up hook of a .venv beside a sourced ROS distribution: adds the messages built in .venv to the search paths.

The dynamic loader reads its path only when a process starts, so Python is restarted once with the right path.
"""

import os
import sys


def extended(variable: str, entry: str) -> str:
    """Return the value of a path variable with `entry` first."""
    present = [part for part in os.environ.get(variable, "").split(os.pathsep) if part and part != entry]
    return os.pathsep.join([entry, *present])


libraries = os.path.join(sys.prefix, "lib")
if libraries not in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep):
    os.environ["LD_LIBRARY_PATH"] = extended("LD_LIBRARY_PATH", libraries)
    os.environ["AMENT_PREFIX_PATH"] = extended("AMENT_PREFIX_PATH", sys.prefix)
    os.execve(sys.executable, sys.orig_argv, os.environ)

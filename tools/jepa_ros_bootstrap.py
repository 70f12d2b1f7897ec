"""Start-up hook of an environment made next to a sourced distribution: puts its own messages on the search paths.

The dynamic loader reads its path when a process starts, so Python is started once more where it is not yet right.
"""

import os
import sys


def extended(variable: str, entry: str) -> str:
    """Value of a path variable with `entry` first."""
    present = [part for part in os.environ.get(variable, "").split(os.pathsep) if part and part != entry]
    return os.pathsep.join([entry, *present])


libraries = os.path.join(sys.prefix, "lib")
if libraries not in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep):
    os.environ["LD_LIBRARY_PATH"] = extended("LD_LIBRARY_PATH", libraries)
    os.environ["AMENT_PREFIX_PATH"] = extended("AMENT_PREFIX_PATH", sys.prefix)
    os.execve(sys.executable, sys.orig_argv, os.environ)

"""Builds the message packages into the virtual environment whose Python runs this file (standard library only).

They are installed right into the environment's prefix, next to those of the wheels, so that they are found with nothing
sourced. Usage: python tools/messages.py BUILD_FOLDER PACKAGE_FOLDER...
"""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path


def rewrite_wheel_paths(text: str, python_include: str, numpy_include: str) -> str:
    """`text` of an exported .cmake file with the paths of the machine that built the wheels replaced by ours."""
    text = re.sub(r"/opt/python/[^;\"\s]*/site-packages/numpy/_?core/include", numpy_include, text)
    return re.sub(r"/opt/python/[^;\"\s/]+/include/python3\.\d+", python_include, text)


def patch_wheels(prefix: Path) -> int:
    """Rewrite the exported .cmake files below `prefix`/share once; returns how many were changed."""
    import numpy

    changed = 0
    for path in prefix.glob("share/*/cmake/*.cmake"):
        before = path.read_text()
        after = rewrite_wheel_paths(before, sysconfig.get_paths()["include"], numpy.get_include())
        if after != before:
            partial = path.with_suffix(".partial")
            partial.write_text(after)
            partial.replace(path)
            changed += 1
    return changed


def build(package: Path, build_folder: Path, prefix: Path) -> None:
    """Configure, build and install one ament_cmake package; raises CalledProcessError."""
    paths = os.pathsep.join([str(prefix), *filter(None, [os.environ.get("AMENT_PREFIX_PATH", "")])])
    # What an outer make tells its children is not meant for the builds here.
    outer = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    environment = outer | {
        "AMENT_PREFIX_PATH": paths,
        "CMAKE_PREFIX_PATH": paths,
        "PATH": os.pathsep.join([str(prefix / "bin"), os.environ.get("PATH", os.defpath)]),
        "VIRTUAL_ENV": str(prefix),
    }
    configure = ["cmake", "-S", str(package), "-B", str(build_folder), f"-DCMAKE_INSTALL_PREFIX={prefix}"]
    configure += [f"-DPython3_EXECUTABLE={sys.executable}", "-DBUILD_TESTING=OFF"]
    compile_all = ["cmake", "--build", str(build_folder), "--parallel", str(os.cpu_count() or 1)]
    for command in (configure, compile_all, ["cmake", "--install", str(build_folder)]):
        print("+", *command, flush=True)
        subprocess.run(command, check=True, env=environment)


def main(arguments: list[str]) -> int:
    build_root, *packages = (Path(argument).resolve() for argument in arguments)
    prefix = Path(sys.prefix)
    print(f"{patch_wheels(prefix)} exported .cmake files rewritten", flush=True)
    for package in packages:
        try:
            build(package, build_root / package.name, prefix)
        except subprocess.CalledProcessError as error:
            return error.returncode or 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

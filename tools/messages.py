"""Builds message packages into the virtual environment whose Python runs this file (standard library only).

They are installed into the environment's prefix, next to those of the wheels, so that they are found with nothing
sourced. The packages must not depend on each other: they are built at the same time.
Usage: python tools/messages.py BUILD_FOLDER PACKAGE_FOLDER...
"""

import compileall
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SKIPPED = ("rosidl_typesupport_cpp", "rosidl_typesupport_introspection_cpp")
"""Type supports that Python does not need; they take a quarter of the time."""


def rewrite_wheel_paths(text: str, python_include: str, numpy_include: str) -> str:
    """Return the text of an exported .cmake file with our paths for those of the machine that built the wheels."""
    text = re.sub(r"/opt/python/[^;\"\s]*/site-packages/numpy/_?core/include", numpy_include, text)
    return re.sub(r"/opt/python/[^;\"\s/]+/include/python3\.\d+", python_include, text)


def patch_wheels(prefix: Path) -> int:
    """Rewrite the exported .cmake files below `prefix`/share; return how many were changed."""
    import numpy

    changed = 0
    for path in prefix.glob("share/*/cmake/*.cmake"):
        before = path.read_text()
        after = rewrite_wheel_paths(before, sysconfig.get_paths()["include"], numpy.get_include())
        if after != before:
            # In a new file: uv's cache may hold the same one.
            partial = path.with_suffix(".partial")
            partial.write_text(after)
            partial.replace(path)
            changed += 1
    return changed


def package_name(package: Path) -> str:
    """Return the name in a package's package.xml: the folder may be called otherwise."""
    return re.search(r"<name>\s*(\w+)\s*</name>", (package / "package.xml").read_text())[1]


def build(package: Path, build_folder: Path, prefix: Path) -> None:
    """Configure, build and install one ament_cmake package; raises CalledProcessError."""
    paths = os.pathsep.join([str(prefix), *filter(None, [os.environ.get("AMENT_PREFIX_PATH", "")])])
    # Settings of an outer make are not for the builds here.
    outer = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    environment = outer | {
        "AMENT_PREFIX_PATH": paths,
        "CMAKE_PREFIX_PATH": paths,
        "PATH": os.pathsep.join([str(prefix / "bin"), os.environ.get("PATH", os.defpath)]),
        "VIRTUAL_ENV": str(prefix),
    }
    configure = ["cmake", "-S", str(package), "-B", str(build_folder), f"-DCMAKE_INSTALL_PREFIX={prefix}"]
    configure += [f"-DPython3_EXECUTABLE={sys.executable}", "-DBUILD_TESTING=OFF"]
    configure += [f"-DSKIPPED_TYPESUPPORTS={';'.join(SKIPPED)}"]
    if shutil.which("ninja", path=environment["PATH"]):
        configure += ["-G", "Ninja"]
    compile_all = ["cmake", "--build", str(build_folder), "--parallel", str(os.cpu_count() or 1)]
    for command in (configure, compile_all, ["cmake", "--install", str(build_folder)]):
        print("+", *command, flush=True)
        subprocess.run(command, check=True, env=environment)


def main(arguments: list[str]) -> int:
    build_root, *packages = (Path(argument).resolve() for argument in arguments)
    prefix = Path(sys.prefix)
    print(f"{patch_wheels(prefix)} exported .cmake files rewritten", flush=True)
    with ThreadPoolExecutor() as pool:
        builds = [pool.submit(build, package, build_root / package.name, prefix) for package in packages]
    for package, done in zip(packages, builds, strict=True):
        if isinstance(error := done.exception(), subprocess.CalledProcessError):
            print(f"{package}: {error}", flush=True)
            return error.returncode or 1
        done.result()
    for package in packages:
        for folder in prefix.glob(f"lib/python3*/site-packages/{package_name(package)}"):
            compileall.compile_dir(folder, quiet=1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

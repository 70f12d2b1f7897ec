"""Package jepa_ros (ament_python). The messages are the package jepa_msgs in msg/."""

import os
import sys
from pathlib import Path

from setuptools import find_packages, setup

NAME = "jepa_ros"
NODES = ["arm_gate", "camera", "planner", "player", "recorder", "simulator", "world_model"]


def tree(folder: str) -> list[tuple[str, list[str]]]:
    """(install folder, files) for every folder under `folder`, as data_files wants them."""
    entries = []
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        if files:
            entries.append((f"share/{NAME}/{path}", sorted(f"{path}/{name}" for name in files)))
    return entries


def requirements(*names: str) -> list[str]:
    lines = [line for name in names for line in Path("requirements", f"{name}.txt").read_text().splitlines()]
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


# An editable install works on the source tree itself: copies of config/ in the environment would only go stale. `make`
# links to the tree instead.
editable = "editable_wheel" in sys.argv
data_files = [
    ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
    (f"share/{NAME}", ["package.xml"]),
    *tree("launch"),
    *tree("config"),
]

setup(
    name=NAME,
    version="0.1.0",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed"]},
    data_files=[] if editable else data_files,
    install_requires=["setuptools", *requirements("torch", "core")],
    extras_require={name: requirements(name) for name in ("models", "lerobot", "tensorboard")}
    | {"test": ["pytest", "hypothesis"]},
    python_requires=">=3.10",
    zip_safe=False,
    maintainer="jepa_ros maintainers",
    maintainer_email="maintainers@jepa-ros.example.com",
    description="Controls arms with a JEPA world model on ROS 2.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            f"{NAME} = {NAME}.cli:main",
            *(f"{node} = {NAME}.nodes.entry:main" for node in NODES),
        ],
    },
)

"""Both packages build, install and test with colcon: at the root of a clone, and with the clone in a workspace."""

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NODES = ("arm_gate", "camera", "planner", "simulator", "world_model")
# Tests of what differs in an install space: files of the share directory, entry points, messages, models by name. The
# others ran in the source tree before.
INSTALLED = [
    f"test/unit/test_{name}.py"
    for name in ("resources", "cli", "bringup", "robot_bringup", "robot_files", "gazebo_robot", "gazebo_world", "security")
    + ("models_list", "models_verify", "shipped_model", "checkpoint", "bags", "node_parameters")
]
TEST = ["colcon", "test", "--return-code-on-test-failure"]
NESTED = ["--base-paths", "src", "src/jepa_ros/msg"]

pytestmark = [pytest.mark.build, pytest.mark.slow]


@pytest.fixture(scope="module")
def environment():
    """The environment as `source .venv/bin/activate; export AMENT_PREFIX_PATH=$VIRTUAL_ENV` leaves it."""
    environment = dict(os.environ)
    prefixes = environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    if sys.prefix not in prefixes:
        environment["AMENT_PREFIX_PATH"] = os.pathsep.join([sys.prefix, *filter(None, prefixes)])
    environment["PATH"] = os.pathsep.join([str(Path(sys.prefix, "bin")), environment["PATH"]])
    environment["VIRTUAL_ENV"] = sys.prefix
    environment |= {"CFLAGS": "-O0", "CXXFLAGS": "-O0"}  # that it compiles is the question, not how well
    # What an outer make or pytest tells its children is not meant for these.
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "COLCON_DEFAULTS_FILE"):
        environment.pop(name, None)
    return environment


def copy_tracked(target: Path) -> None:
    """Copy the files that git tracks, as they are now: nothing that was built or downloaded."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1200)
    output = done.stdout + done.stderr
    assert done.returncode == 0, f"{' '.join(command)} in {folder}:\n{output[-6000:]}"
    return output


def assert_installed(folder: Path, environment: dict[str, str]) -> None:
    """Both packages are installed and are what a shell sees that sources the install space."""
    prefix = folder / "install" / "jepa_ros"
    for node in (*NODES, "jepa_ros"):
        assert os.access(prefix / "lib" / "jepa_ros" / node, os.X_OK), f"lib/jepa_ros/{node} is not installed"
    share = prefix / "share" / "jepa_ros"
    for source in (path for name in ("config", "launch") for path in (ROOT / name).rglob("*") if path.is_file()):
        relative = source.relative_to(ROOT)
        assert "__pycache__" in relative.parts or not tracked(relative) or (share / relative).is_file(), relative
    program = (
        "import jepa_msgs.msg, jepa_msgs.action, jepa_ros\n"
        "from jepa_ros.resources import message_definitions, share_directory\n"
        "import jepa_ros.bringup.environment\n"
        "jepa_msgs.action.ReachGoal.Goal()\n"
        "print(jepa_msgs.__file__, jepa_ros.__file__, share_directory(), message_definitions())"
    )
    # bash reads AMENT_PREFIX_PATH only to extend it, and Python starts as it would from a fresh shell.
    fresh = {name: value for name, value in environment.items() if name != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
    script = f"source install/setup.bash && cd / && exec {sys.executable} -c '{program}'"
    found = run(["bash", "-c", script], folder, fresh).splitlines()[-1].split()
    assert all(path.startswith(str(folder / "install")) for path in found), found


def tracked(path: Path) -> bool:
    return subprocess.run(["git", "ls-files", "--error-unmatch", path], cwd=ROOT, capture_output=True).returncode == 0


def assert_tests_ran(folder: Path, at_least: int) -> None:
    suite = ElementTree.parse(folder / "build" / "jepa_ros" / "pytest.xml").getroot().find("testsuite")
    counts = {name: int(suite.get(name)) for name in ("tests", "failures", "errors")}
    assert counts["failures"] == counts["errors"] == 0 and counts["tests"] >= at_least, counts


@pytest.fixture(scope="module")
def root(tmp_path_factory, environment):
    """A copy of the repository in which both packages are built and installed."""
    folder = tmp_path_factory.mktemp("root")
    copy_tracked(folder)
    run(["colcon", "build"], folder, environment)
    return folder


def test_colcon_builds_and_tests_at_the_repository_root(root, environment):
    assert_installed(root, environment)
    run([*TEST, "--pytest-args", *INSTALLED], root, environment)
    assert_tests_ran(root, at_least=200)


def test_colcon_builds_and_tests_a_clone_in_a_workspace(tmp_path, root, environment):
    """Both packages are found there; the messages, which take long to compile, are those built above."""
    copy_tracked(tmp_path / "src" / "jepa_ros")
    listed = run(["colcon", "list", "--names-only", *NESTED], tmp_path, environment)
    assert listed.split() == ["jepa_msgs", "jepa_ros"]
    underlay = environment | {"AMENT_PREFIX_PATH": f"{root / 'install' / 'jepa_msgs'}:{environment['AMENT_PREFIX_PATH']}"}
    only = ["--packages-select", "jepa_ros"]
    run(["colcon", "build", *NESTED, *only], tmp_path, underlay)
    shutil.copytree(root / "install" / "jepa_msgs", tmp_path / "install" / "jepa_msgs")
    assert_installed(tmp_path, environment)
    run([*TEST, *NESTED, *only, "--pytest-args", "test/unit/test_resources.py"], tmp_path, underlay)
    assert_tests_ran(tmp_path, at_least=5)

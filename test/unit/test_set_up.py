"""The decisions of `make`'s set-up: what is missing, wheels or distribution, what a change or a kill repeats."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def load(name):
    sys.path.insert(0, str(TOOLS))
    try:
        spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(TOOLS))
    return module


if not TOOLS.is_dir():
    pytest.skip("the set-up is part of the source tree only", allow_module_level=True)

machine = load("machine")
messages = load("messages")
set_up = load("set_up")


@pytest.fixture
def venv(tmp_path, monkeypatch):
    monkeypatch.setattr(set_up, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(set_up, "STATE", tmp_path / ".venv" / ".setup")
    return tmp_path / ".venv"


# ---------------------------------------------------------------------------------------- the machine


def test_nothing_is_missing_where_everything_is_there():
    assert machine.missing_packages(lambda name, kind: True) == []


def test_missing_things_are_named_by_their_package():
    absent = {"cmake", "libEGL.so.1"}
    assert machine.missing_packages(lambda name, kind: name not in absent) == ["cmake", "libegl1"]


def test_command_to_install_is_exact():
    assert machine.install_command(["cmake"], root=True) == (
        "apt-get update && apt-get install -y --no-install-recommends cmake"
    )
    assert machine.install_command(["cmake", "g++"], root=False) == (
        "sudo apt-get update && sudo apt-get install -y --no-install-recommends cmake g++"
    )


def test_without_root_the_command_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(machine, "missing_packages", lambda: ["cmake"])
    monkeypatch.setattr(machine.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(machine.SetupError) as error:
        machine.ensure_system_packages(print)
    assert "sudo apt-get install -y --no-install-recommends cmake" in str(error.value) and "\n" not in str(error.value)


def test_without_apt_the_packages_are_named(monkeypatch):
    monkeypatch.setattr(machine, "missing_packages", lambda: ["g++"])
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    with pytest.raises(machine.SetupError, match=r"expected \(by Debian's names\) g\+\+, found no apt-get"):
        machine.ensure_system_packages(print)


# ---------------------------------------------------------------------------------------- wheels or distribution


def test_wheels_where_nothing_is_sourced():
    assert machine.choose_ros({}, lambda module: True) == machine.WHEELS


def test_distribution_where_its_rclpy_is_importable():
    assert machine.choose_ros({"ROS_DISTRO": "jazzy"}, lambda module: module == "rclpy") == machine.DISTRIBUTION


def test_a_distribution_of_another_python_is_refused():
    with pytest.raises(machine.SetupError, match="ROS_DISTRO=jazzy is set: expected a Python"):
        machine.choose_ros({"ROS_DISTRO": "jazzy"}, lambda module: False)


def test_a_distribution_brings_its_own_tf2_msgs():
    assert [path.name for path in set_up.message_packages(machine.DISTRIBUTION)] == ["msg"]
    assert [path.name for path in set_up.message_packages(machine.WHEELS)] == ["tf2_msgs", "msg"]


def test_a_distributions_numpy_1_is_kept_with_its_pinocchio(monkeypatch):
    monkeypatch.setattr(set_up, "system_numpy", lambda: "1.26.4")
    monkeypatch.setattr(set_up, "can_import", lambda module: module == "pinocchio")
    bound = set_up.core_requirements(machine.DISTRIBUTION)
    assert "numpy<2" in bound and not [line for line in bound if line.startswith("pin")]
    # The wheels do not care what numpy the system has.
    assert "numpy<2" not in set_up.core_requirements(machine.WHEELS)
    monkeypatch.setattr(set_up, "system_numpy", lambda: "2.1.0")
    assert set_up.core_requirements(machine.DISTRIBUTION) == set_up.core_requirements(machine.WHEELS)


def test_a_missing_pinocchio_of_the_distribution_is_named(monkeypatch):
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    monkeypatch.setattr(set_up, "system_numpy", lambda: "1.26.4")
    monkeypatch.setattr(set_up, "can_import", lambda module: False)
    with pytest.raises(machine.SetupError, match="apt-get install -y ros-jazzy-pinocchio"):
        set_up.core_requirements(machine.DISTRIBUTION)


def test_next_to_a_distribution_no_wheels_are_installed(venv, monkeypatch):
    (venv / "lib" / "python3.12" / "site-packages").mkdir(parents=True)
    asked = []
    monkeypatch.setattr(set_up, "pip", lambda name, *arguments: asked.extend(arguments))
    set_up.install_ros(machine.DISTRIBUTION)
    assert not [word for word in asked if "ros.txt" in word]
    site = venv / "lib" / "python3.12" / "site-packages"
    assert (site / "jepa_ros_bootstrap.py").is_file() and (site / "jepa_ros_bootstrap.pth").is_file()


def test_an_environment_of_the_other_kind_does_not_fit(venv):
    venv.mkdir()
    version = ".".join(map(str, sys.version_info[:3]))
    config = venv / "pyvenv.cfg"
    config.write_text(f"include-system-site-packages = false\nversion = {version}\n")
    assert set_up.venv_fits(machine.WHEELS) and not set_up.venv_fits(machine.DISTRIBUTION)
    config.write_text(f"include-system-site-packages = true\nversion = {version}\n")
    assert set_up.venv_fits(machine.DISTRIBUTION) and not set_up.venv_fits(machine.WHEELS)
    config.write_text("include-system-site-packages = false\nversion = 3.8.1\n")
    assert not set_up.venv_fits(machine.WHEELS)


def test_bootstrap_restarts_python_with_the_messages_on_its_path(tmp_path):
    environment = {"PATH": os.defpath, "LD_LIBRARY_PATH": "/opt/ros/jazzy/lib", "AMENT_PREFIX_PATH": "/opt/ros/jazzy"}
    environment |= {"PYTHONPATH": str(TOOLS), "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1"}
    shown = "os.environ['LD_LIBRARY_PATH'], os.environ['AMENT_PREFIX_PATH']"
    program = f"import jepa_ros_bootstrap, os; print({shown})"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=30)
    libraries = os.path.join(sys.prefix, "lib")
    assert done.stdout.split() == [f"{libraries}:/opt/ros/jazzy/lib", f"{sys.prefix}:/opt/ros/jazzy"], done.stderr


# ---------------------------------------------------------------------------------------- steps and stamps


def test_a_step_is_done_only_when_its_body_has_ended(venv):
    assert not set_up.is_done("ros", "a")
    with set_up.stamped("ros", "a"):
        assert not set_up.is_done("ros", "a")
    assert set_up.is_done("ros", "a") and not set_up.is_done("ros", "b")
    with pytest.raises(RuntimeError), set_up.stamped("ros", "b"):
        raise RuntimeError
    assert not set_up.is_done("ros", "a") and not set_up.is_done("ros", "b")


def test_a_change_repeats_what_depends_on_it(tmp_path):
    before = set_up.plan_keys(machine.WHEELS, "torch==2.13.0")
    other_torch = set_up.plan_keys(machine.WHEELS, "torch==2.14.0")
    changed = {step for step in before if before[step] != other_torch[step]}
    assert changed == {"torch", "packages", "jepa_ros"}
    assert set(before) == set(set_up.STEPS)
    other_ros = set_up.plan_keys(machine.DISTRIBUTION, "torch==2.13.0")
    assert not [step for step in before if before[step] == other_ros[step]]


def test_a_change_of_any_list_of_packages_installs_them_again(tmp_path, monkeypatch):
    for name in ("ros", "torch", "core", "models", "test", "parity"):
        (tmp_path / "requirements").mkdir(exist_ok=True)
        (tmp_path / "requirements" / f"{name}.txt").write_text(f"{name}\n")
    (tmp_path / "tools").mkdir()
    for name in ("setup.py", "setup.cfg", "package.xml", "tools/messages.py"):
        (tmp_path / name).touch()
    monkeypatch.setattr(set_up, "ROOT", tmp_path)
    for name in ("models", "parity"):
        before = set_up.plan_keys(machine.WHEELS, "torch")
        (tmp_path / "requirements" / f"{name}.txt").write_text("another\n")
        after = set_up.plan_keys(machine.WHEELS, "torch")
        assert {step for step in before if before[step] != after[step]} == {"packages", "jepa_ros"}


def test_reference_code_of_the_parity_tests_is_installed_without_what_it_requires(monkeypatch):
    calls = []
    monkeypatch.setattr(set_up, "pip", lambda name, *arguments: calls.append(arguments))
    set_up.install_packages(machine.WHEELS)
    ours = [call for call in calls if "requirements/parity.txt" not in call]
    peers = [call for call in calls if "requirements/parity.txt" in call]
    assert len(ours) == 1 and "requirements/models.txt" in ours[0] and "--no-deps" not in ours[0]
    assert [("--no-deps" in call) for call in peers] == [True]


def test_when_everything_is_done_nothing_runs(venv, monkeypatch):
    keys = set_up.plan_keys(machine.WHEELS, "torch")
    for step, key in keys.items():
        with set_up.stamped(step, key):
            pass
    monkeypatch.setattr(set_up.subprocess, "Popen", lambda *args, **kwargs: pytest.fail("a command was run"))
    monkeypatch.setattr(set_up.subprocess, "run", lambda *args, **kwargs: pytest.fail("a command was run"))
    set_up.set_up(machine.WHEELS, "torch")


def test_packages_whose_installation_was_killed_are_installed_again(venv):
    site = venv / "lib" / "python3.11" / "site-packages"
    for name, complete in (("good-1.dist-info", True), ("killed-1.dist-info", False)):
        (site / name).mkdir(parents=True)
        (site / name / "METADATA").touch()
        if complete:
            (site / name / "RECORD").touch()
    (site / "~umpy").mkdir()
    set_up.drop_half_installed()
    assert [path.name for path in site.iterdir()] == ["good-1.dist-info"]


def test_a_failed_command_shows_the_end_of_its_log(venv, monkeypatch):
    monkeypatch.setattr(set_up, "ROOT", venv.parent)
    with pytest.raises(machine.SetupError, match="(?s)demo: a command failed.*what went wrong"):
        set_up.run([sys.executable, "-c", "print('what went wrong'); raise SystemExit(3)"], "demo")


def test_an_error_in_the_background_comes_out():
    def fail():
        raise machine.SetupError("messages: no compiler")

    with pytest.raises(machine.SetupError, match="no compiler"):
        set_up.Background(fail).join()


# ---------------------------------------------------------------------------------------- messages


def test_paths_of_the_wheels_build_machine_are_replaced():
    text = (
        'INTERFACE_INCLUDE_DIRECTORIES "/opt/python/cp311-cp311/include/python3.11;'
        '/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include;${_IMPORT_PREFIX}/include"'
    )
    assert messages.rewrite_wheel_paths(text, "/py", "/np") == (
        'INTERFACE_INCLUDE_DIRECTORIES "/py;/np;${_IMPORT_PREFIX}/include"'
    )
    once = messages.rewrite_wheel_paths(text, "/py", "/np")
    assert messages.rewrite_wheel_paths(once, "/py", "/np") == once


def test_python_outside_the_range_is_refused_in_one_line(tmp_path):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.defpath}", "PYTHON": str(old)}
    done = subprocess.run([str(TOOLS / "setup.sh")], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "expected Python 3.10 to 3.12" in done.stderr

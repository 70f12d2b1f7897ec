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
installing = load("installing")
messages = load("messages")
set_up = load("set_up")


@pytest.fixture
def venv(tmp_path, monkeypatch):
    for module in (installing, set_up):
        monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
        monkeypatch.setattr(module, "STATE", tmp_path / ".venv" / ".setup")
    return tmp_path / ".venv"


# ---------------------------------------------------------------------------------------- the machine


def test_no_package_is_missing_on_a_complete_system():
    assert machine.missing_packages(lambda name, kind: True) == []


def test_missing_tools_are_named_by_their_package():
    absent = {"cmake", "libEGL.so.1"}
    assert machine.missing_packages(lambda name, kind: name not in absent) == ["cmake", "libegl1"]


def test_the_install_command_is_exact():
    assert machine.install_command(["cmake"], root=True) == (
        "apt-get update && apt-get install -y --no-install-recommends cmake"
    )
    assert machine.install_command(["cmake", "g++"], root=False) == (
        "sudo apt-get update && sudo apt-get install -y --no-install-recommends cmake g++"
    )


def test_without_root_the_install_command_is_shown_in_one_line(monkeypatch):
    monkeypatch.setattr(machine, "missing_packages", lambda: ["cmake"])
    monkeypatch.setattr(machine.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(machine.SetupError) as error:
        machine.ensure_system_packages(print)
    assert "sudo apt-get install -y --no-install-recommends cmake" in str(error.value) and "\n" not in str(error.value)


def test_without_apt_the_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(machine, "missing_packages", lambda: ["g++"])
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    with pytest.raises(machine.SetupError, match=r"expected \(by Debian's names\) g\+\+, found no apt-get"):
        machine.ensure_system_packages(print)


# ---------------------------------------------------------------------------------------- wheels or distribution


def test_without_a_sourced_distribution_wheels_are_used():
    assert machine.choose_ros({}, lambda module: True) == machine.WHEELS


def test_a_sourced_distribution_with_importable_rclpy_is_used():
    assert machine.choose_ros({"ROS_DISTRO": "jazzy"}, lambda module: module == "rclpy") == machine.DISTRIBUTION


def test_a_distribution_for_another_python_is_refused():
    with pytest.raises(machine.SetupError, match="ROS_DISTRO=jazzy is set: expected a Python"):
        machine.choose_ros({"ROS_DISTRO": "jazzy"}, lambda module: False)


def test_tf2_msgs_are_built_only_with_wheels():
    assert [path.name for path in set_up.message_packages(machine.DISTRIBUTION)] == ["msg"]
    assert [path.name for path in set_up.message_packages(machine.WHEELS)] == ["tf2_msgs", "msg"]


def built(ros, *groups):
    """Whether the messages of controllers are built for these groups of packages."""
    return "controller_messages" in set_up.plan_keys(ros, "torch", groups)


def test_messages_of_controllers_are_built_for_robots_and_tests_but_not_for_the_demo():
    assert built(machine.WHEELS, "robot") and built(machine.WHEELS, "test")
    assert not built(machine.WHEELS) and not built(machine.WHEELS, "lint", "docs")
    for name in set_up.CONTROLLER_MESSAGES:
        assert messages.package_name(TOOLS / name) == name
        assert {path.suffix for path in (TOOLS / name).rglob("*.*")} >= {".msg", ".xml", ".txt"}


def test_messages_of_controllers_are_never_built_beside_a_distribution():
    """They would hide the whole packages."""
    assert not built(machine.DISTRIBUTION, "robot") and not built(machine.DISTRIBUTION, "test")


def test_the_packages_that_a_distribution_lacks_for_controllers_are_named(monkeypatch):
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    monkeypatch.setattr(set_up, "can_import", lambda module: module == "control_msgs")
    line = set_up.missing_controller_messages(machine.DISTRIBUTION)
    assert line.endswith("sudo apt-get install -y ros-jazzy-controller-manager-msgs")
    assert set_up.missing_controller_messages(machine.WHEELS) == ""
    monkeypatch.setattr(set_up, "can_import", lambda module: True)
    assert set_up.missing_controller_messages(machine.DISTRIBUTION) == ""


def test_a_changed_message_of_controllers_repeats_its_build_only(tmp_path, monkeypatch):
    before = set_up.plan_keys(machine.WHEELS, "torch", ["robot"])
    package_files = set_up.package_files
    monkeypatch.setattr(
        set_up, "package_files", lambda folder: package_files(folder)[: 1 if folder.name == "control_msgs" else None]
    )
    after = set_up.plan_keys(machine.WHEELS, "torch", ["robot"])
    assert {step for step in before if before[step] != after[step]} == {"controller_messages"}


def test_setup_for_robots_builds_the_messages_of_controllers_once(venv, monkeypatch):
    """After `make setup`, nothing else is done again."""
    built, keys = [], set_up.plan_keys(machine.WHEELS, "torch")
    for step, key in keys.items():
        with set_up.stamped(step, key):
            pass
    monkeypatch.setattr(set_up, "ensure_system_packages", lambda report: None)
    monkeypatch.setattr(set_up, "run", lambda command, name: built.append([Path(word).name for word in command[3:]]))
    set_up.set_up(machine.WHEELS, "torch", ["robot"])
    monkeypatch.setattr(set_up, "report", lambda text: pytest.fail(f"something was done again: {text}"))
    set_up.set_up(machine.WHEELS, "torch", ["robot"])
    assert built == [["control_msgs", "controller_manager_msgs"]]


def test_numpy_1_and_pinocchio_of_a_distribution_are_kept(monkeypatch):
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


def test_with_a_distribution_no_ros_wheels_are_installed(venv, monkeypatch):
    (venv / "lib" / "python3.12" / "site-packages").mkdir(parents=True)
    asked = []
    monkeypatch.setattr(set_up, "pip", lambda name, *arguments: asked.extend(arguments))
    set_up.install_ros(machine.DISTRIBUTION)
    assert not [word for word in asked if "ros.txt" in word]
    site = venv / "lib" / "python3.12" / "site-packages"
    assert (site / "jepa_ros_bootstrap.py").is_file() and (site / "jepa_ros_bootstrap.pth").is_file()


def test_an_environment_for_the_other_kind_of_ros_is_not_replaced(venv):
    venv.mkdir()
    config = venv / "pyvenv.cfg"
    config.write_text("include-system-site-packages = false\n")
    set_up.expect_kind(machine.WHEELS)
    with pytest.raises(machine.SetupError, match="made for ROS from wheels.*make setup CLEAR=1"):
        set_up.expect_kind(machine.DISTRIBUTION)
    config.write_text("include-system-site-packages = true\n")
    set_up.expect_kind(machine.DISTRIBUTION)
    with pytest.raises(machine.SetupError, match="made for a sourced ROS distribution"):
        set_up.expect_kind(machine.WHEELS)


# ---------------------------------------------------------------------------------------- an existing environment


@pytest.fixture
def other_python(venv, monkeypatch):
    """An environment whose Python says that it was made with another one."""
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin" / "python"
    python.write_text("#!/bin/sh\necho /opt/other/bin/python3\n")
    python.chmod(0o755)
    started = []
    monkeypatch.setattr(set_up.os, "execve", lambda *command: started.append(command))
    monkeypatch.delenv("PYTHON", raising=False)
    monkeypatch.delenv("JEPA_ROS_SETUP", raising=False)
    return started


def test_the_python_of_an_existing_environment_is_used(other_python):
    set_up.use_interpreter_of_venv(["tools/set_up.py", "lint"])
    [(program, arguments, environment)] = other_python
    assert program == "/opt/other/bin/python3" and arguments == [program, "tools/set_up.py", "lint"]
    assert environment["JEPA_ROS_SETUP"]


def test_another_python_than_that_of_an_existing_environment_is_refused(other_python, monkeypatch):
    monkeypatch.setenv("PYTHON", "python3.12")
    with pytest.raises(machine.SetupError, match="PYTHON=python3.12, but .venv was made with /opt/other.*CLEAR=1"):
        set_up.use_interpreter_of_venv(["tools/set_up.py"])
    assert not other_python


def test_a_broken_environment_is_not_replaced_without_clear(venv):
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to("/nowhere/python3")
    with pytest.raises(machine.SetupError, match=r"\.venv/bin/python does not start .*make setup CLEAR=1 replaces"):
        set_up.base_interpreter()


def test_the_same_python_or_no_environment_is_accepted(venv, other_python):
    python = venv / "bin" / "python"
    python.write_text(f"#!/bin/sh\necho {sys.executable}\n")
    set_up.use_interpreter_of_venv([])
    python.unlink()
    set_up.use_interpreter_of_venv([])
    assert not other_python


def test_a_working_environment_is_kept_and_an_incomplete_one_completed(venv, monkeypatch):
    commands = []

    def run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(
            command, 1 if command[-1] == "import pip" and not (venv / "pip").exists() else 0
        )

    monkeypatch.setattr(set_up.subprocess, "run", run)
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").touch()
    (venv / "pyvenv.cfg").write_text("include-system-site-packages = false\n")
    set_up.make_venv(machine.WHEELS)
    assert commands[-1][1:3] == ["-m", "venv"] and "--clear" not in commands[-1]
    (venv / "pip").touch()
    commands.clear()
    set_up.make_venv(machine.WHEELS)
    assert [command[-1] for command in commands] == ["import pip"]


def test_the_bootstrap_restarts_python_with_the_messages_on_its_path(tmp_path):
    environment = {"PATH": os.defpath, "LD_LIBRARY_PATH": "/opt/ros/jazzy/lib", "AMENT_PREFIX_PATH": "/opt/ros/jazzy"}
    environment |= {"PYTHONPATH": str(TOOLS), "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1"}
    shown = "os.environ['LD_LIBRARY_PATH'], os.environ['AMENT_PREFIX_PATH']"
    program = f"import jepa_ros_bootstrap, os; print({shown})"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=30)
    libraries = os.path.join(sys.prefix, "lib")
    assert done.stdout.split() == [f"{libraries}:/opt/ros/jazzy/lib", f"{sys.prefix}:/opt/ros/jazzy"], done.stderr


# ---------------------------------------------------------------------------------------- steps and stamps


def test_a_set_up_step_is_done_only_after_it_ended(venv):
    assert not set_up.is_done("ros", "a")
    with set_up.stamped("ros", "a"):
        assert not set_up.is_done("ros", "a")
    assert set_up.is_done("ros", "a") and not set_up.is_done("ros", "b")
    with pytest.raises(RuntimeError), set_up.stamped("ros", "b"):
        raise RuntimeError
    assert not set_up.is_done("ros", "a") and not set_up.is_done("ros", "b")


def test_a_change_repeats_the_steps_that_depend_on_it(tmp_path):
    before = set_up.plan_keys(machine.WHEELS, "torch==2.13.0")
    other_torch = set_up.plan_keys(machine.WHEELS, "torch==2.14.0")
    changed = {step for step in before if before[step] != other_torch[step]}
    assert changed == {"torch", "packages", "jepa_ros"}
    assert set(before) == set(set_up.STEPS)
    other_ros = set_up.plan_keys(machine.DISTRIBUTION, "torch==2.13.0")
    assert not [step for step in before if before[step] == other_ros[step]]


def test_a_changed_requirements_file_repeats_its_installation(tmp_path, monkeypatch):
    for name in ("ros", "torch", "core", *set_up.GROUPS["test"], "parity"):
        (tmp_path / "requirements").mkdir(exist_ok=True)
        (tmp_path / "requirements" / f"{name}.txt").write_text(f"{name}\n")
    for name in set_up.CONTROLLER_MESSAGES:
        (tmp_path / "tools" / name).mkdir(parents=True)
    for name in ("setup.py", "setup.cfg", "package.xml", "tools/messages.py"):
        (tmp_path / name).touch()
    monkeypatch.setattr(set_up, "ROOT", tmp_path)
    for name, repeated in (("models", {"test"}), ("parity", {"test"}), ("core", {"packages", "jepa_ros", "test"})):
        before = set_up.plan_keys(machine.WHEELS, "torch", ["test"])
        (tmp_path / "requirements" / f"{name}.txt").write_text(f"another {name}\n")
        after = set_up.plan_keys(machine.WHEELS, "torch", ["test"])
        assert {step for step in before if before[step] != after[step]} == repeated


@pytest.fixture
def installed(monkeypatch):
    """The arguments of each installation."""
    calls = []
    monkeypatch.setattr(set_up, "install", lambda name, *arguments: calls.append(arguments))
    for name in ("prune_packages", "compile_modules"):
        monkeypatch.setattr(set_up, name, lambda: None)
    return calls


def test_parity_reference_code_is_installed_without_dependencies(installed):
    set_up.install_group("test", machine.WHEELS)
    ours, peers = installed
    assert any(word.endswith("requirements/models.txt") for word in ours) and "--no-deps" not in ours
    assert "requirements/parity.txt" in peers and "--no-deps" in peers


def test_optional_packages_are_not_installed_by_default(installed):
    set_up.install_packages(machine.WHEELS)
    [words] = installed
    names = {word.partition(">")[0] for word in words}
    assert "mujoco" in names and not names & {"pytest", "hypothesis", "ruff", "transformers", "pyarrow", "tensorboard"}
    set_up.install_group("lint", machine.WHEELS)
    assert any(word.endswith("requirements/lint.txt") for word in installed[-1])


def test_an_unknown_group_is_refused_by_name():
    with pytest.raises(machine.SetupError, match="group 'tests': expected one of models, lerobot"):
        set_up.plan_keys(machine.WHEELS, "torch", ["tests"])


def test_a_finished_set_up_runs_no_command(venv, monkeypatch):
    keys = set_up.plan_keys(machine.WHEELS, "torch")
    for step, key in keys.items():
        with set_up.stamped(step, key):
            pass
    monkeypatch.setattr(set_up.subprocess, "Popen", lambda *args, **kwargs: pytest.fail("a command was run"))
    monkeypatch.setattr(set_up.subprocess, "run", lambda *args, **kwargs: pytest.fail("a command was run"))
    set_up.set_up(machine.WHEELS, "torch")


def test_partly_installed_packages_are_installed_again(venv):
    site = venv / "lib" / "python3.11" / "site-packages"
    for name, complete in (("good-1.dist-info", True), ("killed-1.dist-info", False)):
        (site / name).mkdir(parents=True)
        (site / name / "METADATA").touch()
        if complete:
            (site / name / "RECORD").touch()
    (site / "~umpy").mkdir()
    installing.drop_half_installed()
    assert [path.name for path in site.iterdir()] == ["good-1.dist-info"]


def test_a_failed_command_shows_the_end_of_its_log(venv, monkeypatch):
    monkeypatch.setattr(installing, "ROOT", venv.parent)
    with pytest.raises(machine.SetupError, match="(?s)demo: a command failed.*what went wrong"):
        installing.run([sys.executable, "-c", "print('what went wrong'); raise SystemExit(3)"], "demo")


def test_an_error_in_a_background_step_is_raised():
    def fail():
        raise machine.SetupError("messages: no compiler")

    with pytest.raises(machine.SetupError, match="no compiler"):
        set_up.Background(fail).join()


# ---------------------------------------------------------------------------------------- messages


def test_paths_of_the_wheel_build_machine_are_replaced():
    text = (
        'INTERFACE_INCLUDE_DIRECTORIES "/opt/python/cp311-cp311/include/python3.11;'
        '/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include;${_IMPORT_PREFIX}/include"'
    )
    assert messages.rewrite_wheel_paths(text, "/py", "/np") == (
        'INTERFACE_INCLUDE_DIRECTORIES "/py;/np;${_IMPORT_PREFIX}/include"'
    )
    once = messages.rewrite_wheel_paths(text, "/py", "/np")
    assert messages.rewrite_wheel_paths(once, "/py", "/np") == once


def test_an_unsupported_python_version_is_refused_in_one_line(tmp_path):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.defpath}", "PYTHON": str(old)}
    done = subprocess.run([str(TOOLS / "setup.sh")], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "expected Python 3.10 to 3.12" in done.stderr


def pyenv(tmp_path, body):
    """A folder like pyenv's: a shim that starts nothing, and a `pyenv` that runs the lines of `body`."""
    for name, lines in {
        "shims/python3.12": "echo 'pyenv: python3.12: command not found' >&2\nexit 127",
        "bin/pyenv": body,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{lines}\n")
        (tmp_path / name).chmod(0o755)
    return {"PATH": f"{tmp_path / 'bin'}:{os.defpath}", "PYTHON": str(tmp_path / "shims" / "python3.12")}


def test_the_interpreter_behind_a_pyenv_shim_is_found(tmp_path):
    environment = pyenv(tmp_path, f'[ "$1" = whence ] && echo 3.12.1\n[ "$1" = root ] && echo {tmp_path}')
    real = tmp_path / "versions" / "3.12.1" / "bin" / "python3.12"
    real.parent.mkdir(parents=True)
    real.write_text('#!/bin/sh\n[ "$1" = -c ] || echo "started $*"\n')
    real.chmod(0o755)
    done = subprocess.run([str(TOOLS / "setup.sh")], env=environment, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "started tools/set_up.py\n"), done.stderr


def test_a_python_that_does_not_start_is_refused_with_its_reason(tmp_path):
    done = subprocess.run(
        [str(TOOLS / "setup.sh")], env=pyenv(tmp_path, ""), capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"setup: PYTHON={tmp_path}/shims/python3.12: expected Python 3.10 to 3.12, but it does not start: "
        "pyenv: python3.12: command not found"
    ]


# ---------------------------------------------------------------------------------------- uv and pip


@pytest.fixture
def uv(venv, monkeypatch):
    """A .venv with a uv; returns the commands that are run."""
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "uv").touch()
    (venv / ".setup").mkdir()
    commands = []
    monkeypatch.setattr(installing, "run", lambda command, *_: commands.append(command))
    monkeypatch.setattr(installing, "pip_configuration", lambda: {"find-links": "/wheels", "cert": "/ca.pem"})
    return commands


def test_uv_gets_the_pip_settings(uv):
    settings = {"index-url": "https://a/simple", "extra-index-url": "https://b\nhttps://c", "no-index": "true"}
    options, variables = installing.uv_settings(settings | {"cert": "/ca.pem", "timeout": "60", "no-input": "1"})
    text = " ".join(options)
    assert "--index-url https://a/simple" in text and "--extra-index-url https://b --extra-index-url https://c" in text
    assert "--no-index" in options and variables["SSL_CERT_FILE"] == "/ca.pem" and variables["UV_HTTP_TIMEOUT"] == "60"


@pytest.mark.parametrize("setting", ["client-cert", "only-binary", "user"])
def test_pip_is_used_for_settings_that_uv_does_not_support(uv, setting):
    assert installing.uv_settings({setting: "x"}) is None


def test_without_uv_pip_is_used(venv):
    assert installing.uv_settings({}) is None


def test_pip_is_tried_if_uv_fails(uv, venv, monkeypatch):
    def run(command, log_name, environment=None):
        uv.append(command)
        (venv / ".setup" / f"{log_name}.log").touch()
        if command[0].endswith("uv"):
            raise machine.SetupError("no")

    monkeypatch.setattr(installing, "run", run)
    installing.install("core", "numpy", only_pip=("--use-pep517",))
    first, second = uv
    assert first[0].endswith("uv") and "--find-links" in first and "--use-pep517" not in first
    assert second[1:3] == ["-m", "pip"] and second[-2:] == ["--use-pep517", "numpy"]


@pytest.mark.parametrize(("plan", "announced"), [(" + torch==2.13.0+cpu", False), (" + nvidia-cublas==13.1", True)])
def test_the_download_size_of_cuda_torch_is_announced_first(uv, venv, monkeypatch, plan, announced):
    events = []

    def install(name, *arguments):
        events.append(arguments)
        (venv / ".setup" / "torch_plan.log").write_text(plan)

    monkeypatch.setattr(installing, "install", install)
    monkeypatch.setattr(installing, "report", events.append)
    monkeypatch.setattr(installing, "CUDA_SPACE_GB", 1e-3)
    installing.install_torch(["torch==2.13.0"])
    said = [event for event in events if isinstance(event, str)]
    assert bool(said) == announced and events[-1] == ("torch==2.13.0",)
    if announced:
        assert "GB of disk" in said[0] and "TORCH=" in said[0]
        monkeypatch.setattr(installing, "CUDA_SPACE_GB", 1e9)
        with pytest.raises(machine.SetupError, match="GB are free"):
            installing.install_torch(["torch==2.13.0"])


def test_pruning_removes_listed_files_only(tmp_path):
    for name in (
        "torch/include/a.h",
        "torch/bin/test_api",
        "torch/bin/torch_shm_manager",
        "torch/nn/a.py",
        "b/include/c.h",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(1000))
    assert installing.prune(tmp_path) == pytest.approx(2e-3)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"torch/bin/torch_shm_manager", "torch/nn/a.py", "b/include/c.h"}
    assert installing.prune(tmp_path) == 0

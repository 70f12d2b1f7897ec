"""Create .venv with everything that the project needs (standard library only; run by tools/setup.sh).

    python tools/set_up.py [GROUP...]        GROUP: packages that only some commands or the tests need, see GROUPS

A completed step writes a stamp with a hash of its inputs. So a second run does nothing and needs no network, a change
repeats the steps that depend on it, and an interrupted run resumes.
Environment: CLEAR=1 replaces an existing .venv, TORCH=... is the requirement for pip, PRUNE=0 keeps unused files.
"""

import configparser
import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from installing import (
    ROOT,
    STATE,
    VENV,
    drop_half_installed,
    inherited,
    install,
    install_torch,
    pip,
    prune,
    report,
    run,
)
from machine import DISTRIBUTION, WHEELS, SetupError, can_import, choose_ros, ensure_system_packages

# An exact release, since a range would select the newest one, whose build with CUDA takes several GB.
TORCH = "torch==2.13.0"
UV = "uv>=0.5,<1"
BOOTSTRAP = "jepa_ros_bootstrap"
STEPS = ("venv", "ros", "messages", "torch", "packages", "jepa_ros")
GROUPS = {
    "models": ("models",),
    "lerobot": ("lerobot",),
    "tensorboard": ("tensorboard",),
    "docs": ("docs",),
    "lint": ("lint",),
    "robot": (),
    "test": ("test", "lint", "docs", "models", "lerobot", "tensorboard"),
}
"""Groups of requirements/*.txt that `make setup` leaves out: `make test` and others ask for them."""
CONTROLLER_MESSAGES = ("control_msgs", "controller_manager_msgs")
"""Message packages with which gate and doctor read the controllers' state; a simulation needs none of them."""

# Imported once after the installation, so that Python compiles what the nodes use before they all start at once.
IMPORTED = (
    "av coal cv2 matplotlib.backends.backend_agg matplotlib.pyplot mcap mujoco numpy openarm_mujoco OpenGL.EGL "
    "OpenGL.GL PIL.Image pinocchio pydantic rich.live rich.table rosbags.rosbag2 rosbags.typesys ruckig "
    "safetensors.torch scipy.interpolate scipy.ndimage scipy.optimize scipy.spatial scipy.spatial.transform "
    "torch typer yaml"
)
COMPILED = ("rclpy", "rpyutils", "rosidl_parser", "rosidl_pycommon", "builtin_interfaces", "*_interfaces", "*_msgs")
"""ROS packages, compiled without being imported: the messages are not built yet. Glob patterns in site-packages."""


def flag(name: str) -> bool:
    """Return whether an environment variable is set to anything but 0, no or false."""
    return os.environ.get(name, "").lower() not in ("", "0", "no", "false")


# ------------------------------------------------------------------------------------------------ stamps


def digest(inputs: object, files: Iterable[Path] = ()) -> str:
    """Return a hash of JSON-able inputs and of the names and contents of files."""
    state = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode())
    for path in sorted(files):
        state.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return state.hexdigest()


def is_done(step: str, key: str) -> bool:
    stamp = STATE / step
    return stamp.is_file() and stamp.read_text() == key


@contextlib.contextmanager
def stamped(step: str, key: str) -> Iterator[None]:
    """Remove the step's stamp, and write it again if the block ends without an error."""
    STATE.mkdir(parents=True, exist_ok=True)
    stamp = STATE / step
    stamp.unlink(missing_ok=True)
    yield
    partial = STATE / f"{step}.partial"
    partial.write_text(key)
    partial.replace(stamp)


def plan_keys(ros: str, torch: str, groups: Sequence[str] = ()) -> dict[str, str]:
    """Return a hash of the inputs of each step, including those of the steps that it depends on."""
    requirements = ROOT / "requirements"
    keys = {"venv": digest([sys.version, os.path.realpath(sys.executable), ros, str(VENV)])}
    keys["ros"] = digest([keys["venv"]], [requirements / "ros.txt"])
    sources = [path for package in message_packages(ros) for path in package_files(package)]
    keys["messages"] = digest([keys["ros"]], [*sources, ROOT / "tools" / "messages.py"])
    keys["torch"] = digest([keys["ros"], torch])
    keys["packages"] = digest([keys["torch"]], [requirements / f"{name}.txt" for name in ("torch", "core")])
    launch_files = sorted(path.name for path in (ROOT / "launch").glob("*.launch.py"))
    keys["jepa_ros"] = digest(
        [keys["packages"], *launch_files], [ROOT / "setup.py", ROOT / "setup.cfg", ROOT / "package.xml"]
    )
    for group in groups:
        if files := group_files(group):
            keys[group] = digest([keys["packages"]], files)
    if ros == WHEELS and not {"robot", "test"}.isdisjoint(groups):
        sources = [path for name in CONTROLLER_MESSAGES for path in package_files(ROOT / "tools" / name)]
        keys["controller_messages"] = digest([keys["ros"]], [*sources, ROOT / "tools" / "messages.py"])
    return keys


def package_files(package: Path) -> list[Path]:
    return [path for path in package.rglob("*") if path.is_file()]


def group_files(group: str) -> list[Path]:
    """Return the lists of packages that belong to a group. Raises SetupError for an unknown one."""
    if group not in GROUPS:
        raise SetupError(f"group '{group}': expected one of {', '.join(GROUPS)}")
    names = (*GROUPS[group], "parity") if group == "test" else GROUPS[group]
    return [ROOT / "requirements" / f"{name}.txt" for name in names]


# ------------------------------------------------------------------------------------------------ the environment


def base_interpreter() -> str | None:
    """Return the Python that the existing .venv was made with, None if there is no .venv.

    Raises SetupError if the environment's Python does not start; only `CLEAR=1` replaces it.
    """
    python = VENV / "bin" / "python"
    if not os.path.lexists(python):
        return None
    show = "import sys; print(sys._base_executable)"
    try:
        done = subprocess.run([str(python), "-c", show], capture_output=True, text=True)
        problem = done.stderr.strip().splitlines()[-1:] if done.returncode else []
    except OSError as error:
        done, problem = None, [error.strerror or str(error)]
    if done is None or done.returncode:
        reason = (problem or ["no message"])[0]
        raise SetupError(f".venv/bin/python does not start ({reason}); make setup CLEAR=1 replaces .venv")
    return done.stdout.strip()


def use_interpreter_of_venv(arguments: list[str]) -> None:
    """Continue with the Python of an existing .venv; it is never replaced without CLEAR=1. Raises SetupError."""
    base = base_interpreter()
    if base is None or os.path.realpath(base) == os.path.realpath(sys.executable):
        return
    if wanted := os.environ.get("PYTHON"):
        raise SetupError(f"PYTHON={wanted}, but .venv was made with {base}; make setup CLEAR=1 PYTHON=... replaces it")
    if "JEPA_ROS_SETUP" in os.environ:
        raise SetupError(f".venv was made with {base}, which is not what it starts; make setup CLEAR=1 replaces it")
    os.execve(base, [base, *arguments], os.environ | {"JEPA_ROS_SETUP": "1"})


def make_venv(ros: str) -> None:
    """Create .venv, or complete one that was interrupted; one that works is kept. Raises SetupError."""
    python = VENV / "bin" / "python"
    if python.exists():
        expect_kind(ros)
        if subprocess.run([str(python), "-c", "import pip"], capture_output=True).returncode == 0:
            return
    site = ["--system-site-packages"] if ros == DISTRIBUTION else []
    done = subprocess.run([sys.executable, "-m", "venv", *site, str(VENV)], capture_output=True, text=True)
    if done.returncode:
        raise SetupError(f"python -m venv: {(done.stdout + done.stderr).strip()[-400:]}")
    (VENV / "COLCON_IGNORE").touch()


def expect_kind(ros: str) -> None:
    """Raise SetupError if .venv was made for ROS from wheels and a distribution is sourced, or the other way round."""
    settings = dict(line.split(" = ", 1) for line in (VENV / "pyvenv.cfg").read_text().splitlines() if " = " in line)
    made_for = DISTRIBUTION if settings.get("include-system-site-packages") == "true" else WHEELS
    if made_for != ros:
        kinds = {WHEELS: "ROS from wheels", DISTRIBUTION: "a sourced ROS distribution"}
        raise SetupError(
            f".venv was made for {kinds[made_for]}, and this shell has {kinds[ros]}; use another shell, or "
            "make setup CLEAR=1 replaces .venv"
        )


# ------------------------------------------------------------------------------------------------ steps


def install_uv(ros: str) -> None:
    """Install uv; without it everything is installed by pip. uv does not see the packages of a distribution."""
    if ros == WHEELS:
        with contextlib.suppress(SetupError):
            pip("uv", "--quiet", UV)


def install_ros(ros: str) -> None:
    if ros == WHEELS:
        install("ros", "-r", "requirements/ros.txt")
        return
    pip("ros", "setuptools>=71,<80")
    # The wheels bring a start-up hook that puts the environment's libraries on the loader's path. A distribution has
    # none, and the messages built into the environment need one.
    site = site_packages()
    shutil.copy(ROOT / "tools" / f"{BOOTSTRAP}.py", site)
    (site / f"{BOOTSTRAP}.pth").write_text(f"import {BOOTSTRAP}\n")


def site_packages() -> Path:
    return next(VENV.glob("lib/python3*/site-packages"))


def message_packages(ros: str) -> list[Path]:
    """Return the message packages to build: a distribution has its own tf2_msgs, the wheels have none."""
    return [ROOT / "msg"] if ros == DISTRIBUTION else [ROOT / "tools" / "tf2_msgs", ROOT / "msg"]


def build_messages(step: str, packages: Sequence[Path]) -> None:
    folder = VENV / "build"
    # A build that was killed may have left half-written files whose dates look right.
    shutil.rmtree(folder, ignore_errors=True)
    run([str(VENV / "bin" / "python"), "tools/messages.py", str(folder), *map(str, packages)], step)
    shutil.rmtree(folder, ignore_errors=True)


def missing_controller_messages(ros: str) -> str:
    """Return one line with the command that installs what a distribution lacks, or an empty text.

    Ours hold a part of each package only: beside a distribution they would hide the whole one once it is installed.
    """
    missing = [name for name in CONTROLLER_MESSAGES if ros == DISTRIBUTION and not can_import(name)]
    if not missing:
        return ""
    names = " ".join(f"ros-{os.environ['ROS_DISTRO']}-{name.replace('_', '-')}" for name in missing)
    return f"gate and doctor cannot read the controllers' state without: sudo apt-get install -y {names}"


def system_numpy() -> str:
    """Return the version of the numpy that a distribution's packages were compiled with, or an empty text."""
    show = "import numpy; print(numpy.__version__)"
    return subprocess.run([sys.executable, "-c", show], capture_output=True, text=True).stdout.strip()


def core_requirements(ros: str) -> list[str]:
    """Return the lines of core.txt that fit this environment.

    Compiled packages need the numpy that they were built with, 1.x or 2.x. If a distribution has 1.x (Ubuntu 24.04),
    Pinocchio comes from the distribution, too: its wheels need 2.x.
    """
    lines = [line for line in (ROOT / "requirements" / "core.txt").read_text().splitlines() if not line.startswith("#")]
    if ros != DISTRIBUTION or not system_numpy().startswith("1."):
        return lines
    if not can_import("pinocchio"):
        package = f"ros-{os.environ['ROS_DISTRO']}-pinocchio"
        raise SetupError(f"Pinocchio is missing beside numpy 1; install it with: sudo apt-get install -y {package}")
    return [*(line for line in lines if not line.startswith("pin")), "numpy<2", "opencv-python-headless<4.12"]


def install_packages(ros: str) -> None:
    install("packages", "-r", "requirements/torch.txt", *core_requirements(ros))
    prune_packages()
    compile_modules()


def prune_packages() -> None:
    if os.environ.get("PRUNE") != "0":
        freed = prune(site_packages())
        report(f"    removed {freed:.0f} MB that nothing here uses (PRUNE=0 keeps it; tools/installing.py lists it)")


def compile_modules() -> None:
    """Have Python compile the modules that the nodes import."""
    python = str(VENV / "bin" / "python")
    program = (
        f"for name in {IMPORTED!r}.split():\n    try:\n        __import__(name)\n"
        "    except Exception as error:\n        print(name, error)"
    )
    environment = os.environ | {"MUJOCO_GL": "egl"}
    folders = [str(path) for pattern in COMPILED for path in site_packages().glob(pattern) if path.is_dir()]
    run([python, "-c", program], "compile", environment)
    run([python, "-m", "compileall", "-q", str(ROOT / "jepa_ros"), *folders], "compile")


def install_group(group: str, ros: str) -> None:
    """Install a group beside the core, whose ranges still hold."""
    files = [word for path in group_files(group) if path.stem != "parity" for word in ("-r", str(path))]
    install(group, *files, *core_requirements(ros))
    if group == "test":
        # What these require is not available beside torch's CPU build, nor needed: see the file.
        install("parity", "--no-deps", "-r", "requirements/parity.txt")
    prune_packages()


def install_jepa_ros() -> None:
    # Without --use-pep517 some pips follow setup.cfg's script folders, which are for colcon; uv knows no other way.
    flags = ("--no-deps", "--no-build-isolation", "--editable", ".")
    install("jepa_ros", *flags, only_pip=("--use-pep517",))
    link_share()


def link_share() -> None:
    """Let `ros2 run` and `ros2 launch` find nodes, launch files and configuration of the source tree."""
    [installed] = (VENV / "lib").glob("python*/site-packages/jepa_ros-*.dist-info/entry_points.txt")
    entry_points = configparser.ConfigParser()
    entry_points.read(installed)
    for name in entry_points["console_scripts"]:
        relink(VENV / "lib" / "jepa_ros" / name, VENV / "bin" / name)
    for name in ("config", "package.xml"):
        relink(VENV / "share" / "jepa_ros" / name, ROOT / name)
    # ros2 launch walks this folder without following links to folders: the files are linked, one by one.
    files = VENV / "share" / "jepa_ros" / "launch"
    if files.is_symlink():
        files.unlink()
    for file in (ROOT / "launch").glob("*.launch.py"):
        relink(files / file.name, file)
    relink(VENV / "share" / "ament_index" / "resource_index" / "packages" / "jepa_ros", ROOT / "resource" / "jepa_ros")


def relink(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target)


# ------------------------------------------------------------------------------------------------ all together


def set_up(ros: str, torch: str, groups: Sequence[str] = ()) -> None:
    """Run the steps that are not done, in order; the messages are compiled while packages are installed."""
    keys = plan_keys(ros, torch, groups)
    if "robot" in groups and (line := missing_controller_messages(ros)):
        report(line)
    pending = [step for step in keys if not is_done(step, keys[step])]
    if not pending:
        return
    ensure_system_packages(report)
    if "venv" in pending:
        report(f"1/5 virtual environment .venv, Python {sys.version.split()[0]}, ROS from {ros}")
        with stamped("venv", keys["venv"]):
            make_venv(ros)
            install_uv(ros)
    drop_half_installed()
    if "ros" in pending:
        report("2/5 ROS 2")
        with stamped("ros", keys["ros"]):
            install_ros(ros)
    builds = {"messages": message_packages(ros)}
    builds["controller_messages"] = [ROOT / "tools" / name for name in CONTROLLER_MESSAGES]
    builds = {step: packages for step, packages in builds.items() if step in pending}
    messages = Background(lambda: build_steps(builds, keys)) if builds else None
    beside = "; the messages are compiled beside it" if messages else ""
    if "torch" in pending or "packages" in pending:
        report(f"3/5 {torch or 'torch as it is'} and Python packages{beside}")
    if "torch" in pending:
        with stamped("torch", keys["torch"]):
            if torch:
                install_torch(shlex.split(torch))
    if "packages" in pending:
        with stamped("packages", keys["packages"]):
            install_packages(ros)
    if "jepa_ros" in pending:
        report("4/5 jepa_ros, as an editable install")
        with stamped("jepa_ros", keys["jepa_ros"]):
            install_jepa_ros()
    for group in groups:
        if group in pending:
            report(f"packages for {group}")
            with stamped(group, keys[group]):
                install_group(group, ros)
    if messages:
        report("5/5 messages")
        messages.join()
    hint = "; make setup-robot lets gate and doctor read the state of real controllers"
    report(f"set-up complete{hint if ros == WHEELS and not (STATE / 'controller_messages').is_file() else ''}")


def build_steps(builds: Mapping[str, Sequence[Path]], keys: Mapping[str, str]) -> None:
    """Build the message packages of each step, one step after the other."""
    for step, packages in builds.items():
        with stamped(step, keys[step]):
            build_messages(step, packages)


class Background(threading.Thread):
    """A thread whose error is raised by join()."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self._work, self._error = work, None
        self.start()

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error

    def join(self, timeout: float | None = None) -> None:
        super().join(timeout)
        if self._error is not None:
            raise self._error


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Hold a lock, since two runs at once would install over each other: the second one waits."""
    with open(ROOT / "setup.py") as lock:
        # Commands started here inherit the lock and keep it if this process is killed.
        os.set_inheritable(lock.fileno(), True)
        inherited.append(lock.fileno())
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("another set-up is running here; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: list[str]) -> int:
    try:
        if not flag("CLEAR"):
            use_interpreter_of_venv(arguments)
        with only_one():
            if flag("CLEAR") and VENV.exists():
                report("CLEAR=1: removing .venv")
                shutil.rmtree(VENV.resolve())
            set_up(choose_ros(os.environ, can_import), os.environ.get("TORCH", TORCH), arguments[1:])
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("setup: interrupted; the next run resumes", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))

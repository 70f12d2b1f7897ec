"""Makes .venv hold everything that the project needs (standard library only; run by tools/setup.sh).

Each step leaves a stamp with a hash of what went into it, written when the step is complete. So a second run does
nothing and needs no network, a change repeats what depends on it, and a run that was killed goes on where it was.
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
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from machine import DISTRIBUTION, WHEELS, SetupError, can_import, choose_ros, ensure_system_packages

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STATE = VENV / ".setup"
# The exact release is a CPU build where one is at hand; a range would take the newest, with several GB for CUDA.
TORCH = "torch==2.13.0"
BOOTSTRAP = "jepa_ros_bootstrap"
STEPS = ("venv", "ros", "messages", "torch", "packages", "jepa_ros")

started = time.monotonic()
inherited: list[int] = []  # file descriptors that started commands keep open


def report(text: str) -> None:
    print(f"[{time.monotonic() - started:5.0f} s] {text}", flush=True)


# ------------------------------------------------------------------------------------------------ stamps


def digest(inputs: object, files: Iterable[Path] = ()) -> str:
    """Hash of JSON-able inputs and of the names and contents of files."""
    state = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode())
    for path in sorted(files):
        state.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return state.hexdigest()


def is_done(step: str, key: str) -> bool:
    stamp = STATE / step
    return stamp.is_file() and stamp.read_text() == key


@contextlib.contextmanager
def stamped(step: str, key: str) -> Iterator[None]:
    """Write the step's stamp when the body has run without an error; until then there is none."""
    STATE.mkdir(parents=True, exist_ok=True)
    stamp = STATE / step
    stamp.unlink(missing_ok=True)
    yield
    partial = STATE / f"{step}.partial"
    partial.write_text(key)
    partial.replace(stamp)


def plan_keys(ros: str, torch: str) -> dict[str, str]:
    """What each step depends on, as a hash; a step includes the steps whose result it stands on."""
    requirements = ROOT / "requirements"
    python = [sys.version, os.path.realpath(sys.executable), ros, str(VENV)]
    keys = {"venv": digest(python)}
    keys["ros"] = digest([keys["venv"]], [requirements / "ros.txt"])
    sources = [path for folder in message_packages(ros) for path in folder.rglob("*") if path.is_file()]
    keys["messages"] = digest([keys["ros"]], [*sources, ROOT / "tools" / "messages.py"])
    keys["torch"] = digest([keys["ros"], torch])
    packages = ("torch", "core", "models", "test", "parity")
    keys["packages"] = digest([keys["torch"]], [requirements / f"{name}.txt" for name in packages])
    launch_files = sorted(path.name for path in (ROOT / "launch").glob("*.launch.py"))
    keys["jepa_ros"] = digest(
        [keys["packages"], *launch_files], [ROOT / "setup.py", ROOT / "setup.cfg", ROOT / "package.xml"]
    )
    return keys


# ------------------------------------------------------------------------------------------------ steps


def run(command: list[str], log_name: str, counted: str | None = None) -> None:
    """Run a command with its output in .venv/.setup/<log_name>.log.

    counted: lines that begin with this word are counted in the progress. Raises SetupError with the output's end.
    """
    STATE.mkdir(parents=True, exist_ok=True)
    log = STATE / f"{log_name}.log"
    count, told = 0, time.monotonic()
    with log.open("w") as file:
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=inherited, **output)
        for line in process.stdout:
            file.write(line)
            count += counted is not None and line.startswith(counted)
            if line.startswith("Installing collected"):
                report(f"{log_name}: {count} packages found, installing")
                told = time.monotonic()
            elif time.monotonic() - told > 15:
                report(f"{log_name}: {line.strip()[:90]}")
                told = time.monotonic()
        process.wait()
    if process.returncode:
        tail = "\n".join(log.read_text().splitlines()[-15:])
        raise SetupError(f"{log_name}: a command failed; its log {log.relative_to(ROOT)} ends in:\n{tail}")


def pip(log_name: str, *arguments: str) -> None:
    command = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    run([*command, "install", "--progress-bar", "off", *arguments], log_name, counted="Collecting")


def make_venv(ros: str) -> None:
    works = VENV / "bin" / "python"
    # An environment of the right kind that came from elsewhere is kept; one that a kill left half made is not.
    reusable = works.exists() and subprocess.run([str(works), "-c", "import pip"], capture_output=True).returncode == 0
    if reusable and venv_fits(ros):
        return
    site = ["--system-site-packages"] if ros == DISTRIBUTION else []
    done = subprocess.run([sys.executable, "-m", "venv", "--clear", *site, str(VENV)], capture_output=True, text=True)
    if done.returncode:
        raise SetupError(f"python -m venv: {(done.stdout + done.stderr).strip()[-400:]}")
    (VENV / "COLCON_IGNORE").touch()


def venv_fits(ros: str) -> bool:
    """Whether the existing environment is of this Python and sees, or does not see, the system's packages."""
    settings = dict(line.split(" = ", 1) for line in (VENV / "pyvenv.cfg").read_text().splitlines() if " = " in line)
    version = ".".join(map(str, sys.version_info[:3]))
    site = settings.get("include-system-site-packages") == "true"
    return settings.get("version") == version and site == (ros == DISTRIBUTION)


def drop_half_installed() -> None:
    """Forget packages whose installation was killed: pip writes RECORD last, but takes them for complete without."""
    for folder in VENV.glob("lib/python3*/site-packages/*.dist-info"):
        if not (folder / "RECORD").is_file():
            shutil.rmtree(folder)
    for folder in VENV.glob("lib/python3*/site-packages/~*"):
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()


def install_ros(ros: str) -> None:
    if ros == WHEELS:
        pip("ros", "-r", "requirements/ros.txt")
        return
    pip("ros", "setuptools>=71,<80")
    # The wheels bring a start-up hook that puts the environment's libraries on the loader's path. A distribution has
    # none, and the messages built into the environment need one.
    site = next(VENV.glob("lib/python3*/site-packages"))
    shutil.copy(ROOT / "tools" / f"{BOOTSTRAP}.py", site)
    (site / f"{BOOTSTRAP}.pth").write_text(f"import {BOOTSTRAP}\n")


def message_packages(ros: str) -> list[Path]:
    """Message packages to build: a distribution has its own tf2_msgs, the wheels have none."""
    return [ROOT / "msg"] if ros == DISTRIBUTION else [ROOT / "tools" / "tf2_msgs", ROOT / "msg"]


def build_messages(ros: str) -> None:
    folder = VENV / "build"
    # A build that was killed may have left half-written files whose dates look right.
    shutil.rmtree(folder, ignore_errors=True)
    packages = [str(path) for path in message_packages(ros)]
    run([str(VENV / "bin" / "python"), "tools/messages.py", str(folder), *packages], "messages")
    shutil.rmtree(folder, ignore_errors=True)


def system_numpy() -> str:
    """Version of the numpy that a distribution's packages were compiled with, or an empty text."""
    show = "import numpy; print(numpy.__version__)"
    return subprocess.run([sys.executable, "-c", show], capture_output=True, text=True).stdout.strip()


def core_requirements(ros: str) -> list[str]:
    """Lines of core.txt as this environment can have them.

    Compiled packages hold to the numpy they were built with, 1.x or 2.x. Where a distribution has 1.x (Ubuntu 24.04),
    Pinocchio comes from the distribution too: its wheels want 2.x.
    """
    lines = [line for line in (ROOT / "requirements" / "core.txt").read_text().splitlines() if not line.startswith("#")]
    if ros != DISTRIBUTION or not system_numpy().startswith("1."):
        return lines
    if not can_import("pinocchio"):
        package = f"ros-{os.environ['ROS_DISTRO']}-pinocchio"
        raise SetupError(f"Pinocchio is missing beside numpy 1; install it with: sudo apt-get install -y {package}")
    return [*(line for line in lines if not line.startswith("pin")), "numpy<2", "opencv-python-headless<4.12"]


def install_packages(ros: str) -> None:
    files = [word for name in ("torch", "models", "test") for word in ("-r", f"requirements/{name}.txt")]
    pip("packages", *files, *core_requirements(ros))
    # What these require is not to be had beside torch's CPU build, nor needed: see the file.
    pip("parity", "--no-deps", "-r", "requirements/parity.txt")


def install_jepa_ros() -> None:
    # Without --use-pep517 some pips follow setup.cfg's script folders, which are meant for colcon.
    pip("jepa_ros", "--no-deps", "--no-build-isolation", "--use-pep517", "--editable", ".")
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


def set_up(ros: str, torch: str) -> None:
    keys = plan_keys(ros, torch)
    if all(is_done(step, keys[step]) for step in STEPS):
        return
    ensure_system_packages(report)
    if not is_done("venv", keys["venv"]):
        report(f"1/5 virtual environment .venv, Python {sys.version.split()[0]}, ROS from {ros}")
        make_venv(ros)
        with stamped("venv", keys["venv"]):
            pass
    drop_half_installed()
    if not is_done("ros", keys["ros"]):
        report("2/5 ROS 2 and its build tools")
        with stamped("ros", keys["ros"]):
            install_ros(ros)
    build = Background(lambda: build_step(ros, keys))
    install_step(ros, torch, keys)
    build.join()
    if not is_done("jepa_ros", keys["jepa_ros"]):
        report("5/5 jepa_ros itself, as an editable install")
        with stamped("jepa_ros", keys["jepa_ros"]):
            install_jepa_ros()
    report("set-up complete")


def build_step(ros: str, keys: dict[str, str]) -> None:
    if not is_done("messages", keys["messages"]):
        report("3/5 messages: generating and compiling (goes on beside the next step)")
        with stamped("messages", keys["messages"]):
            build_messages(ros)
        report("messages: done")


def install_step(ros: str, torch: str, keys: dict[str, str]) -> None:
    if not is_done("torch", keys["torch"]):
        report(f"4/5 {torch or 'torch: as it is'}")
        with stamped("torch", keys["torch"]):
            if torch:
                pip("torch", *shlex.split(torch))
    if not is_done("packages", keys["packages"]):
        report("4/5 Python packages")
        with stamped("packages", keys["packages"]):
            install_packages(ros)


class Background(threading.Thread):
    """A thread whose error comes out of join()."""

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
    """Hold a lock: two runs at once would install over each other. The second waits, and finds everything done."""
    with open(ROOT / "setup.py") as lock:
        # Commands that we start inherit the lock, so that they keep it should this process be killed before them.
        os.set_inheritable(lock.fileno(), True)
        inherited.append(lock.fileno())
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("another set-up is running here; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    try:
        with only_one():
            set_up(choose_ros(os.environ, can_import), os.environ.get("TORCH", TORCH))
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("setup: interrupted; the next run goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

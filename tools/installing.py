"""Installing packages into .venv with uv or pip, and removing files that nothing here uses (standard library only)."""

import ast
import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from machine import SetupError

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STATE = VENV / ".setup"

inherited: list[int] = []
"""File descriptors that started commands keep open."""
started = time.monotonic()

CUDA_SPACE_GB = 5
"""Disk space of a torch build with CUDA: 4.9 GB for torch 2.13.0."""

PRUNED = {
    "cmeel.prefix/include": "headers of Boost, Pinocchio and Coal, for building C++",
    "cmeel.prefix/lib/*.a": "static libraries, for building C++",
    "cmeel.prefix/lib/cmake": "exported targets, for building C++",
    "cmeel.prefix/lib/pkgconfig": "the same",
    "cmeel.prefix/share/doc": "documentation",
    "torch/include": "headers: for torch.utils.cpp_extension, and for torch.compile on the CPU",
    "torch/test": "compiled tests",
    "torch/bin/*test*": "compiled tests",
    "torch/bin/*Test": "compiled tests",
    "torch/bin/protoc*": "compiler of protocol buffers",
    "torch/share/cmake": "exported targets, for building C++",
}
"""Below site-packages: what is removed after an installation, and what it is. jepa_ros builds no C++ against these
libraries and calls neither torch.compile nor cpp_extension. `make setup PRUNE=0` keeps everything."""


def report(text: str) -> None:
    print(f"[{time.monotonic() - started:5.0f} s] {text}", flush=True)


def run(command: list[str], log_name: str, environment: Mapping[str, str] | None = None) -> None:
    """Run a command with its output in .venv/.setup/<log_name>.log; every 15 s its last line is reported.

    Raises SetupError with the end of the output.
    """
    STATE.mkdir(parents=True, exist_ok=True)
    log = STATE / f"{log_name}.log"
    reported = time.monotonic()
    with log.open("w") as file:
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=inherited, env=environment, **output)
        for line in process.stdout:
            file.write(line)
            if time.monotonic() - reported > 15:
                report(f"    {log_name}: {line.strip()[:90]}")
                reported = time.monotonic()
        process.wait()
    if process.returncode:
        tail = "\n".join(log.read_text().splitlines()[-15:])
        raise SetupError(f"{log_name}: a command failed; its log {log.relative_to(ROOT)} ends in:\n{tail}")


def pip(log_name: str, *arguments: str) -> None:
    """Install with pip. Modules are compiled when they are first imported: most of them never are."""
    command = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    run([*command, "--no-compile", "--progress-bar", "off", *arguments], log_name)


def install(log_name: str, *arguments: str, only_pip: Sequence[str] = ()) -> None:
    """Install with uv, which takes a third of pip's time; with pip if uv is missing or fails.

    only_pip: arguments that uv does not know and pip needs.
    """
    found = uv_settings(pip_configuration())
    if found is not None:
        options, variables = found
        command = [str(VENV / "bin" / "uv"), "pip", "install", "--python", str(VENV / "bin" / "python")]
        try:
            run([*command, *options, *arguments], log_name, os.environ | variables)
            return
        except SetupError:
            shutil.copy(STATE / f"{log_name}.log", STATE / f"{log_name}.uv.log")
            report(f"    {log_name}: uv failed (.venv/.setup/{log_name}.uv.log); trying pip")
    pip(log_name, *only_pip, *arguments)


def install_torch(requirement: Sequence[str]) -> None:
    """Install torch; a build with CUDA is announced with its size first. Raises SetupError if the disk is too small."""
    with contextlib.suppress(SetupError):  # old pips know no --dry-run
        install("torch_plan", "--dry-run", *requirement)
    if re.search(r"\b(nvidia|cuda)-", (STATE / "torch_plan.log").read_text()):
        version = ".".join(map(str, sys.version_info[:2]))
        report(
            f"    no CPU build of torch for Python {version} at hand: the build with CUDA takes {CUDA_SPACE_GB} GB of "
            "disk. Another one: make setup TORCH='torch==2.13.0 --index-url URL'"
        )
        if (free := shutil.disk_usage(ROOT).free / 1e9) < CUDA_SPACE_GB:
            raise SetupError(f"torch with CUDA takes {CUDA_SPACE_GB} GB of disk, and {free:.1f} GB are free")
    install("torch", *requirement)


def pip_configuration() -> dict[str, str]:
    """Return pip's settings, from its files and from PIP_... variables, by name without the section."""
    command = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True).stdout
    settings = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section in ("global", "install", ":env:"):
            settings[key] = str(ast.literal_eval(value))
    return settings


# Settings of pip that change nothing about what is installed from where.
_HARMLESS = {
    *("disable-pip-version-check", "no-input", "progress-bar", "no-color", "quiet", "verbose", "root-user-action"),
    *("retries", "cache-dir", "require-virtualenv", "break-system-packages", "no-compile", "no-warn-script-location"),
}
_OPTIONS = {
    "index-url": "--index-url",
    "extra-index-url": "--extra-index-url",
    "find-links": "--find-links",
    "constraint": "--constraint",
    "trusted-host": "--allow-insecure-host",
}
_FLAGS = {"no-index": "--no-index", "no-cache-dir": "--no-cache"}
_VARIABLES = {
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}


def uv_settings(configuration: Mapping[str, str]) -> tuple[list[str], dict[str, str]] | None:
    """Return options and environment variables with which uv installs as pip would; None if it cannot.

    configuration: of `pip_configuration`. None also for a setting that is not known here.
    """
    if not (VENV / "bin" / "uv").exists() or set(configuration) - _HARMLESS - {*_OPTIONS, *_FLAGS, *_VARIABLES}:
        return None
    # pip takes the best version of all its indexes, too.
    options = ["--index-strategy", "unsafe-best-match"]
    for key, option in _OPTIONS.items():
        options += [word for value in configuration.get(key, "").split() for word in (option, value)]
    options += [
        flag for key, flag in _FLAGS.items() if configuration.get(key, "").lower() in ("1", "true", "yes", "on")
    ]
    variables = {name: configuration[key] for key, name in _VARIABLES.items() if key in configuration}
    return options, variables | {"UV_PYTHON_DOWNLOADS": "never"}


def prune(site_packages: Path, patterns: Iterable[str] = tuple(PRUNED)) -> float:
    """Remove what PRUNED lists; return the space that this freed, in MB."""
    freed = 0
    for pattern in patterns:
        for path in site_packages.glob(pattern):
            files = [path] if path.is_file() or path.is_symlink() else [p for p in path.rglob("*") if p.is_file()]
            freed += sum(file.lstat().st_size for file in files)
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return freed / 1e6


def drop_half_installed() -> None:
    """Remove what an interrupted installation left behind, which pip would regard as installed."""
    for site in VENV.glob("lib/python3*/site-packages"):
        for path in site.glob("*.dist-info"):
            if not (path / "RECORD").is_file():
                shutil.rmtree(path)
        for path in site.glob("~*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

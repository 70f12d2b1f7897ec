"""The command line: instant, one line for bad input, no traceback on Ctrl-C."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from jepa_ros import cli
from jepa_ros.commands import graph
from jepa_ros.errors import InputError

HEAVY = ("torch", "mujoco", "rclpy", "numpy", "cv2", "plotly")


def run(*arguments: str):
    return CliRunner().invoke(cli.app, list(arguments))


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["demo", "--help"], ["evaluate", "sim", "--help"], ["evaluate", "bag", "--help"], ["models", "list"]],
)
def test_help_loads_no_heavy_library(arguments):
    program = (
        "import sys\nfrom jepa_ros import cli\nsys.argv = ['jepa_ros', *sys.argv[1:]]\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    code = end.code\n"
        f"print('LOADED', code, [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "LOADED 0 []", done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["collect", "sim"],
        ["train", "model"],
        ["demo"],
        ["evaluate", "sim"],
        ["evaluate", "bag"],
        ["up", "sim"],
        ["up", "robot"],
        ["models", "inspect"],
    ],
)
def test_every_command_has_help(command):
    result = run(*command, "--help")
    assert result.exit_code == 0 and "Usage" in result.output


def test_invalid_input_is_one_line_and_exit_2(monkeypatch):
    def refuse(target, **options):
        raise InputError("model 'raech': expected one of [reach],\n found nothing")

    monkeypatch.setattr(graph, "call", refuse)
    result = run("demo")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == ["jepa_ros: model 'raech': expected one of [reach], found nothing"]


def test_a_missing_optional_package_is_named_with_the_install_command(monkeypatch):
    def import_missing(target, **options):
        raise ModuleNotFoundError("No module named 'pyarrow.parquet'", name="pyarrow.parquet")

    monkeypatch.setattr(graph, "call", import_missing)
    result = run("demo")
    assert result.exit_code == 2 and "Traceback" not in result.output
    [line] = result.stderr.splitlines()
    assert "pyarrow" in line and "'jepa_ros[lerobot]'" in line


def test_unknown_option_exits_2():
    assert run("demo", "--gaols", "3").exit_code == 2
    assert run("demo", "--goals", "three").exit_code == 2


def test_ctrl_c_prints_no_traceback(monkeypatch):
    def interrupted(target, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(graph, "call", interrupted)
    result = run("demo")
    assert result.exit_code == 130 and "Traceback" not in result.output


@pytest.mark.parametrize("code", [None, 0, 1])
def test_the_exit_code_of_a_command_is_returned(monkeypatch, code):
    monkeypatch.setattr(graph, "call", lambda target, **options: code)
    assert run("demo").exit_code == (code or 0)


def test_options_reach_the_implementation(monkeypatch):
    calls = []
    monkeypatch.setattr(graph, "call", lambda target, **options: calls.append((target, options)))
    run("demo", "--goals", "3", "--seed", "1", "--headless")
    target, options = calls[0]
    assert target == "jepa_ros.demo.run:run"
    assert (options["goals"], options["seed"], options["headless"]) == (3, 1, True)

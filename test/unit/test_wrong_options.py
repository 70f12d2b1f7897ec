"""Wrong input to any option of any command: one line on stderr that names it, exit code 2, nothing created or changed.

The tests walk the real parser, so a new option without a row in WRONG fails. A row: values that it must refuse.
"""

import contextlib
import functools
import importlib
import io
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer

from jepa_ros import cli
from jepa_ros.commands import base

COMMAND_MODULES = ("data", "evaluation", "graph", "models", "operating", "robots", "training")
URDF = """<robot name="a"><link name="base"/><link name="tool"/><joint name="j" type="revolute"><parent link="base"/>
<child link="tool"/><axis xyz="0 0 1"/><limit lower="-1" upper="1" velocity="1" effort="1"/></joint></robot>"""

VALID = {
    "bench plan": {"--against": "stable-worldmodel"},
    "calibrate camera": {"--bag": "bag"},
    "collect sim": {"--out": "new"},
    "compare methods": {"--data": "bag"},
    "compare runs": {"RUNS": "dir"},
    "data build": {"BAGS": "bag", "--out": "new"},
    "data export": {"DATASET": "dir", "--out": "new"},
    "data import": {"SOURCE": "dir", "--out": "new"},
    "data inspect": {"BAG": "bag"},
    "evaluate bag": {"BAGS": "bag"},
    "goal image": {"IMAGES": "image.png"},
    "goal joints": {"JOINTS": "elbow=0.5"},
    "goal object": {"NAME": "puck", "X": "0.1", "Y": "0.2", "Z": "0.3"},
    "goal pose": {"X": "0.1", "Y": "0.2", "Z": "0.3"},
    "import lewm": {"PATH": "file", "--out": "new"},
    "import vjepa2-ac": {"PATH": "file", "--out": "new"},
    "models inspect": {"MODEL": "openarm_reach"},
    "models install": {"SOURCE": "dir"},
    "models verify": {"MODEL": "openarm_reach"},
    "pretrain": {"BAGS": "bag", "--out": "new"},
    "robot check": {"ROBOT": "openarm"},
    "robot new": {"--urdf": "arm.urdf"},
    "security policy": {"--out": "new.xml"},
    "train heads": {"--model": "openarm_reach", "--data": "bag"},
    "train model": {"--data": "bag"},
    "up replay": {"BAG": "bag"},
}
"""What a command cannot do without: arguments by name (in capitals) and options."""

NO_NUMBERS = ("x", "", "-1", "1.5x", "nan", "inf", "99999999999999999999999")
COUNT = (*NO_NUMBERS, "1.5")
REAL = (*NO_NUMBERS, "1e99")
COORDINATE = ("x", "", "nan", "inf")
DIRECTORY = ("", "file", "missing")
FILE = ("", "dir", "missing", "missing/file")
BAG = ("", "file", "dir", "missing")
URDF_FILE = (*FILE, "file", "bad.yaml")
OUT = ("", "file", "file/below", "/proc/new", "x" * 300)
OUT_FILE = ("", "dir", "file/below", "/proc/new", "x" * 300)
MODEL = ("", "unknown", "missing/model", "file", "dir")
ROBOT = ("", "unknown", "missing/robot.yaml", "file", "dir", "bad.yaml")
NAME = ("", "a/b", "../a", ".", "-a", "a b")
TOPIC_OR_NONE = ("9", "a b", "a//b", "a-b")
TOPIC = ("", *TOPIC_OR_NONE)
CHOICE = ("", "unknown")
DEVICE = ("", "gpu", "cuda:x", "cuda:-1")
OBJECT = ("", "name", "name=", "=topic", "a b=topic", "tool=topic")
TEXT = ("",)

WRONG = {
    **dict.fromkeys(("--seed", "--goal-seed", "--domain", "--hold-button", "--end-button"), COUNT),
    **dict.fromkeys(("--goals", "--episodes", "--starts", "--repeats", "--pairs", "--faults", "--plan-states"), COUNT),
    **dict.fromkeys(("--updates", "--policy-updates", "--tune", "--tune-updates", "--seeds", "--batch"), COUNT),
    **dict.fromkeys(("--workers", "--threads", "--load", "--horizon", "--ticks", "--min-ticks", "--block"), COUNT),
    **dict.fromkeys(("--width", "--height", "--size", "--patch", "--frames", "--stride", "--depth", "--heads"), COUNT),
    **dict.fromkeys(("--rate", "--control-rate", "--seconds", "--minutes", "--timeout", "--save-every"), REAL),
    **dict.fromkeys(("--tolerance", "--learning-rate", "--momentum"), REAL),
    **dict.fromkeys(("X", "Y", "Z"), COORDINATE),
    **dict.fromkeys(("RUNS", "DATASET", "data import SOURCE"), DIRECTORY),
    **dict.fromkeys(("BAG", "BAGS", "--bag", "--data"), BAG),
    **dict.fromkeys(("--description", "--urdf"), URDF_FILE),
    **dict.fromkeys(("IMAGES", "--reference"), (*FILE, "file")),
    **dict.fromkeys(("--mapping", "--thresholds", "--recipe"), (*FILE, "file", "bad.yaml")),
    "--params-file": FILE,
    "import lewm PATH": ("", "missing"),
    "import vjepa2-ac PATH": FILE,
    "--out": OUT,
    **dict.fromkeys(("calibrate camera --out", "robot new --out", "security policy --out"), OUT_FILE),
    **dict.fromkeys(("--table", "--write"), OUT_FILE),
    "--record": ("file", "file/below", "/proc/new"),
    **dict.fromkeys(("MODEL", "--model"), MODEL),
    "--robot": ROBOT,
    "ROBOT": ("", "unknown", "dir"),
    "--name": NAME,
    **dict.fromkeys(("--base", "--tool", "NAME", "--encoder", "models install SOURCE"), TEXT),
    **dict.fromkeys(("--camera", "--camera-topic", "pretrain --topic"), TOPIC),
    **dict.fromkeys(("--namespace", "--robot-namespace", "--joint-states", "--executed", "--topic"), TOPIC_OR_NONE),
    **dict.fromkeys(("--mode", "--method", "--solver", "--policy", "--metric", "--format", "--task"), CHOICE),
    **dict.fromkeys(("--against", "--log-level", "--arm", "bench plan --device"), CHOICE),
    "--command-interface": ("unknown",),
    "--device": DEVICE,
    "--object": OBJECT,
    "--methods": ("", "unknown", "sigreg,", "sigreg,unknown"),
    "--fail-if": ("", "score", "score<", "score=1", "<3", "score<x"),
    "JOINTS": ("", "elbow", "elbow=", "=1", "elbow=x", "elbow=nan"),
    "--box": ("x", "1,2", "1,2,3,x", "0.4,0.3,0,1", "nan,1,2,3", "90,91,90,91"),
    "--reset": ("x", "1", "1,2,3"),
    "--axes": ("", "x", "1", "0,-1", "0,1.5"),
}
"""Values that an option or argument must refuse; "robot new --out" takes precedence over "--out"."""

WITH = {"collect live --axes": {"--mode": "joy"}, "collect live --topic": {"--mode": "joy"}}
"""Other options without which an option is refused in any case."""
FEATURE_CHECKS = {"--box", "--reset", "--axes"}
"""Options that the called function checks, before anything else."""

LATE = (
    ("collect sim --out new --rate 15", "--rate"),
    ("collect sim --out full", "full"),
    ("collect live --ticks 3 --seconds 3", "--ticks"),
    ("collect live --seed 1 --mode joy", "--seed"),
    ("collect live --axes 1,0", "--axes"),
    ("compare runs dir", "runs"),
    ("compare runs dir full", "dir"),
    ("data inspect bag --write full/note", "--write"),
    ("data export dir --out new", "dir"),
    ("data import dir --out new", "dir"),
    ("data build bag --out full", "full"),
    ("goal joints a=1 a=2", "'a'"),
    ("record --params-file bad.yaml", "bad.yaml"),
    ("up sim --params-file keys.yaml", "keys.yaml"),
    ("up robot --command-interface servo_twist", "servo_twist"),
    ("up robot --arm left --robot ur5e", "left"),
    ("robot new --urdf arm.urdf --tool unknown", "unknown"),
    ("robot new --urdf arm.urdf --out file", "file"),
)
"""Command lines whose mistake only the called function can see, and a word of the error."""


def walk(command, path=()):
    children = getattr(command, "commands", None)
    if children is None:
        yield " ".join(path), command
    for name, child in (children or {}).items():
        yield from walk(child, (*path, name))


APPLICATION = typer.main.get_command(base.app)  # built once: for each command line it would take longer than parsing
COMMANDS = dict(walk(APPLICATION))


def name_of(parameter) -> str:
    return base.option_name(parameter)


def is_flag(parameter) -> bool:
    return bool(getattr(parameter, "is_flag", False))


def rows_of(command: str, name: str):
    return WRONG.get(f"{command} {name}", WRONG.get(name))


def command_line(command: str, values: dict) -> list[str]:
    arguments = [value for name, value in values.items() if not name.startswith("-")]
    return [*command.split(), *(f"{n}={v}" for n, v in values.items() if n.startswith("-")), *arguments]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with files of each kind; the tests run in it."""
    folder = tmp_path_factory.mktemp("wrong")
    for name in ("dir", "bag", "full"):
        (folder / name).mkdir()
    (folder / "bag" / "bag_0.mcap").write_bytes(b"")
    (folder / "full" / "note").write_text("kept")
    (folder / "file").write_text("text\n")
    (folder / "bad.yaml").write_text("a: [1\n")
    (folder / "keys.yaml").write_text("planner: 1\n")
    (folder / "arm.urdf").write_text(URDF)
    cv2.imwrite(str(folder / "image.png"), np.zeros((8, 8, 3), np.uint8))
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


class Accepted(Exception):
    """The options were accepted: the command would start."""


def accept(target, **options):
    raise Accepted(target)


@pytest.fixture
def stopped_before_work(monkeypatch):
    """Commands end where they would call a feature. Checks of the same value run once, to be quick."""
    for name in COMMAND_MODULES:
        monkeypatch.setattr(importlib.import_module(f"jepa_ros.commands.{name}"), "call", accept)
    monkeypatch.setattr(base, "resolve_model", functools.cache(base.resolve_model))
    call, cached = base.call, functools.cache(base.call)
    monkeypatch.setattr(
        base, "call", lambda target, value: (call if isinstance(value, list) else cached)(target, value)
    )


def snapshot(folder: Path) -> list[tuple]:
    return sorted((str(p), p.is_dir() or (p.stat().st_mtime_ns, p.read_bytes())) for p in folder.rglob("*"))


def problem_of(place: Path, arguments: list[str], words: tuple[str, ...]) -> str:
    """Return what is wrong with how a command refuses `arguments`; its line must contain one of the words."""
    before, out, error, code = snapshot(place), io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            APPLICATION.main(arguments, prog_name="jepa_ros")
        except SystemExit as end:
            code = end.code
        except Accepted:
            return f"{arguments}: was accepted"
    lines = error.getvalue().splitlines()
    if code != 2 or len(lines) != 1 or not lines[0].startswith("jepa_ros") or out.getvalue():
        return f"{arguments}: exit code {code}, stderr {lines}, stdout {out.getvalue()[:80]!r}"
    if not any(word and word in lines[0] for word in words):
        return f"{arguments}: none of {words} in {lines[0]!r}"
    return f"{arguments}: files were created or changed" if snapshot(place) != before else ""


def test_every_option_is_tested_with_invalid_values():
    known = [(c, name_of(p)) for c, command in COMMANDS.items() for p in command.params if not is_flag(p)]
    missing = [f"{command}: {name}" for command, name in known if not rows_of(command, name)]
    assert not missing, f"add values that must be refused to WRONG in {Path(__file__).name}, for {missing}"
    used = {f"{c} {n}" if f"{c} {n}" in WRONG else n for c, n in known}
    assert sorted(set(WRONG) - used) == [], "rows in WRONG without an option"
    needed = {f"{c}: {name_of(p)}" for c, command in COMMANDS.items() for p in command.params if p.required}
    given = {f"{c}: {name}" for c, values in VALID.items() for name in values}
    assert needed == given, "VALID must have exactly what each command requires"


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_start_with_their_required_options_only(place, stopped_before_work, command):
    with pytest.raises(Accepted):
        APPLICATION.main(command_line(command, VALID.get(command, {})), prog_name="jepa_ros")


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_values_are_refused(place, stopped_before_work, command):
    problems = []
    for parameter in COMMANDS[command].params:
        name = name_of(parameter)
        for value in ("x",) if is_flag(parameter) else rows_of(command, name):
            if name in FEATURE_CHECKS:
                continue
            values = VALID.get(command, {}) | WITH.get(f"{command} {name}", {}) | {name: value}
            words = (name,) if name.startswith("-") else (name, f"'{value}'", f"bag {value}:")
            problems.append(problem_of(place, command_line(command, values), words))
    assert not any(problems), "\n".join(filter(None, problems))


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_command_lines_are_refused(place, stopped_before_work, command):
    """A required option or argument is missing, an option is unknown, lacks its value, or there is an argument more."""
    valid = VALID.get(command, {})
    problems = [problem_of(place, [*command_line(command, valid), "--unknown-option"], ("--unknown-option",))]
    for parameter in COMMANDS[command].params:
        name = name_of(parameter)
        if parameter.required:
            without = {n: v for n, v in valid.items() if n != name}
            words = (name, "Z") if name in ("NAME", "X", "Y") else (name,)  # the last one counts as missing
            problems.append(problem_of(place, command_line(command, without), words))
        if name.startswith("--") and not is_flag(parameter):
            problems.append(problem_of(place, [*command_line(command, valid), name], (name,)))
    if not any(p.nargs == -1 for p in COMMANDS[command].params):
        problems.append(problem_of(place, [*command_line(command, valid), "one-more"], ("one-more",)))
    assert not any(problems), "\n".join(filter(None, problems))


def test_every_numeric_option_has_a_minimum_and_a_maximum():
    def limits(parameter):
        holder = parameter if hasattr(parameter, "min") else parameter.type  # newer typers, older ones
        return getattr(holder, "min", None), getattr(holder, "max", None)

    known = [(c, name_of(p), limits(p)) for c, command in COMMANDS.items() for p in command.params]
    numbers = [entry for entry in known if rows_of(*entry[:2]) in (COUNT, REAL)]
    assert len(numbers) > 50 and [entry for entry in numbers if None in entry[2]] == []


@pytest.mark.parametrize("name", sorted(FEATURE_CHECKS))
def test_values_checked_by_the_implementation_are_refused(place, name):
    others = WITH.get(f"collect live {name}", {})
    problems = [problem_of(place, command_line("collect live", others | {name: v}), (name,)) for v in WRONG[name]]
    assert not any(problems), "\n".join(filter(None, problems))


@pytest.mark.parametrize("line, word", LATE)
def test_mistakes_found_by_the_implementation_are_refused(place, line, word):
    assert not problem_of(place, line.split(), (word,))


@pytest.mark.parametrize("line", ["unknown", "evaluate unknown", "--unknown", "evaluate --unknown"])
def test_unknown_commands_are_refused(place, line):
    assert not problem_of(place, line.split(), (line.split()[-1],))


@pytest.mark.parametrize(
    "line",
    [
        "demo --seed -1",
        "evaluate sim --out file",
        "train model --data missing",
        "soak --model none",
        "up replay dir",
    ],
)
def test_wrong_input_to_the_real_program_is_one_line(place, line):
    before = snapshot(place)
    root = Path(cli.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    program = [sys.executable, "-m", "jepa_ros.cli", *line.split()]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    assert line.split()[-1] in done.stderr and snapshot(place) == before

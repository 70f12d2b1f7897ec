"""What all commands share: the application, options with their checks, one line for bad input, exit codes.

Options are checked while the command line is parsed, so that bad input is refused before anything heavy is imported and
before anything is written.
"""

import importlib
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from jepa_ros.bringup.ros_names import check_ros_name
from jepa_ros.errors import InputError
from jepa_ros.reporting.output import prepare_file, prepare_out
from jepa_ros.resources import list_models, list_robots, resolve_model

UsageError, ClickException = typer.BadParameter.__mro__[1:3]  # of click, or of the copy of it that newer typers hold

PANELS = RUN, ROBOT, MODELS, TRAINING = "Run the graph", "Set up a robot", "Use and evaluate models", "Train models"
"""Headings in the help of `jepa_ros`."""
MAX_SEED = 2**31 - 1
MAX_COUNT = 10**9
"""Largest value of options that need no smaller one."""
MAX_WORKERS = 256
MAY_BE_EMPTY = {"record"}
"""Options whose empty value has a meaning and is not the default."""
EXTRAS = {
    "pyarrow": "lerobot",
    "huggingface_hub": "models",
    "transformers": "models",
    "tensorboard": "tensorboard",
}
"""Packages that few commands need, and the extra of setup.py that installs each."""


class Group(TyperGroup):
    """A group of commands. Its help lists them by heading, where they have one, each with its whole first sentence."""

    def collect_usage_pieces(self, context: typer.Context) -> list[str]:
        return ["COMMAND ..."]

    def format_commands(self, context: typer.Context, formatter: Any) -> None:
        for panel in (None, *PANELS):
            listed = [(name, c) for name, c in self.commands.items() if (c.rich_help_panel or None) == panel]
            if records := [(name, c.get_short_help_str(limit=1000)) for name, c in listed if not c.hidden]:
                with formatter.section(panel or "Commands"):
                    formatter.write_dl(records)


class Application(Group):
    """The top-level group: bad input is one line on stderr and exit code 2; Ctrl-C ends with 130."""

    def main(self, *args: Any, standalone_mode: bool = True, **settings: Any) -> Any:
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **settings)
        try:
            code = super().main(*args, standalone_mode=False, **settings)
        except ClickException as error:
            if "NoArgsIsHelp" in type(error).__name__:
                error.show()
            else:
                typer.echo(usage_text(error), err=True)
            code = error.exit_code
        except InputError as error:
            code = refuse(str(error))
        except OSError as error:
            if os.environ.get("JEPA_ROS_TRACEBACK"):
                raise
            named = f"{error.filename}: " if error.filename is not None else ""
            code = refuse(f"{named}{error.strerror or error} (JEPA_ROS_TRACEBACK=1 shows where)")
        except ModuleNotFoundError as error:
            extra = EXTRAS.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            install = f"{sys.executable} -m pip install 'jepa_ros[{extra}]'"
            code = refuse(f"this needs the package {error.name}, which few commands need; install it with: {install}")
        except (typer.Abort, KeyboardInterrupt):
            code = 130
        sys.exit(code or 0)


class Command(TyperCommand):
    """A command that refuses empty values and numbers that are not finite; its errors name option, value and help."""

    def parse_args(self, context: typer.Context, args: list[str]) -> list[str]:
        given: dict[str, Any] = {}
        try:
            given, *_ = self.make_parser(context).parse_args(args=list(args))
            self.refuse_empty_values(context, given)
            return super().parse_args(context, args)
        except UsageError as error:
            parameter = getattr(error, "param", None)
            error.ctx, error.value = context, given.get(parameter.name) if parameter is not None else None
            raise

    def refuse_empty_values(self, context: typer.Context, given: dict[str, Any]) -> None:
        """Raise InputError for the first empty value. `Path("")` would be the current directory."""
        for parameter in () if context.resilient_parsing else self.get_params(context):
            values = given.get(parameter.name)
            empty = "" in (values if isinstance(values, list | tuple) else [values])
            if empty and parameter.default != "" and parameter.name not in MAY_BE_EMPTY:
                raise InputError(f"{option_name(parameter)} '': is empty; give a value, or leave it out")

    def invoke(self, context: typer.Context) -> Any:
        for parameter in self.get_params(context):
            value = context.params.get(parameter.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{option_name(parameter)} {value}: give a finite number")
        return super().invoke(context)

    def collect_usage_pieces(self, context: typer.Context) -> list[str]:
        return [re.sub(r"\{?(\w+)\}?", lambda name: name[1].upper(), p) for p in super().collect_usage_pieces(context)]

    def format_options(self, context: typer.Context, formatter: Any) -> None:
        """Write arguments and options with the kind of value and the range in short words."""
        parameters = [(p.param_type_name, p.get_help_record(context)) for p in self.get_params(context)]
        for kind, heading in (("argument", "Arguments"), ("option", "Options")):
            if records := [tidy_record(*record, kind) for found, record in parameters if found == kind and record]:
                with formatter.section(heading):
                    formatter.write_dl(records)


KINDS = {"int": "N", "integer": "N", "float": "NUMBER", "path": "PATH", "str": "TEXT"}
"""Kinds of values by typer's names for them."""


def tidy_record(name: str, text: str, kind: str) -> tuple[str, str]:
    """Return an entry of the help: "--goals <int range>" as "--goals N", "1<=x<=9" as "1 to 9"."""
    if kind == "argument":
        return re.sub(r"\W.*", "", name).upper(), text.replace("  [required]", "")
    name = re.sub(r"<(?:list\[)?(\w+).*>", lambda found: KINDS.get(found[1].lower(), found[1].upper()), name)
    text = re.sub(rf"([\d.]+)<=x<=({MAX_SEED}|{MAX_COUNT})\b", r"at least \1", text)
    text = re.sub(r"([\d.]+)<=x<=([\d.]+)", r"\1 to \2", text)
    return name, re.sub(r"\b(\d+)\.0\b", r"\1", text)


def refuse(text: str) -> int:
    """Print one line for bad input and return the exit code for it."""
    typer.echo(f"jepa_ros: {InputError(text)}", err=True)
    return 2


PLAINER = {
    "Input should be": "must be",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "Got unexpected extra argument(s)": "unexpected arguments",
}
"""Words of typer's errors, and what we say for them."""


def usage_text(error: Any) -> str:
    """Return one line for a command line that does not fit the command."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    path = context.command_path if context is not None else "jepa_ros"
    name = option_name(parameter) if parameter is not None else ""
    if type(error).__name__ == "MissingParameter":
        text = f"missing required {'option' if name.startswith('-') else 'argument'} {name}"
    else:
        text = (error.message if name else error.format_message()).rstrip(".").partition(", unable to parse")[0]
        for words, plain in PLAINER.items():
            text = text.replace(words, plain)
        value = getattr(error, "value", None)
        text = f"{name} '{value}': {text}" if isinstance(value, str) else f"{name}: {text}" if name else text
    return f"{path}: {InputError(text)}; see {path} --help"


def option_name(parameter: typer.CallbackParam) -> str:
    """Return "--camera-topic" for an option, "BAGS" for an argument."""
    return max(parameter.opts, key=len) if parameter.opts[0].startswith("-") else parameter.name.upper()


def command(group: typer.Typer, name: str | None = None, panel: str | None = None) -> Callable:
    """Register a function as a command; it returns the exit code, or None for 0. panel: as for `group`."""
    return group.command(name, cls=Command, rich_help_panel=panel)


def call(target: str, *values: Any, **options: Any) -> Any:
    """Import `module:function` and call it."""
    module, function = target.split(":")
    return attrgetter(function)(importlib.import_module(module))(*values, **options)


def group(name: str, help: str, panel: str) -> typer.Typer:
    """Add a group of commands to the application. panel: the heading that it is listed under."""
    made = typer.Typer(cls=Group, help=help, **GROUP)
    app.add_typer(made, name=name, rich_help_panel=panel)
    return made


# ----------------------------------------------------------------------------------------------- checks of options


def each(check: Callable[[str, Any], Any]) -> Callable:
    """Return a typer callback that calls check(option's name, value) for the value, or for each of several."""

    def callback(context: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
        if not context.resilient_parsing:
            for one in value if isinstance(value, list | tuple) else [value]:
                if one is not None:
                    check(option_name(param), one)
        return value

    return callback


def check_choice(names: Sequence[str]) -> Callable[[str, str], None]:
    """Return a check that accepts `names` only."""

    def check(option: str, value: str) -> None:
        if value not in names:
            listed = ", ".join(name or "''" for name in names)
            raise InputError(f"{option} '{value}': expected one of {listed}")

    return check


def check_exists(option: str, path: Path) -> None:
    """Check that there is a readable file or directory."""
    if not path.exists():
        raise InputError(f"{option} {path}: no such file or directory")
    if not os.access(path, os.R_OK):
        raise InputError(f"{option} {path}: no permission to read it")


def check_file(option: str, path: Path) -> None:
    """Check that there is a readable file."""
    check_exists(option, path)
    if path.is_dir():
        raise InputError(f"{option} {path}: is a directory; give a file")


def check_directory(option: str, path: Path) -> None:
    """Check that there is a readable directory."""
    check_exists(option, path)
    if not path.is_dir():
        raise InputError(f"{option} {path}: is a file; give a directory")


def check_with(target: str) -> Callable[[str, Any], None]:
    """Return a check that calls `module:function` with the value.

    Its errors have the form "noun value: reason"; the option's name takes the place of the noun.
    """

    def check(option: str, value: Any) -> None:
        try:
            call(target, value)
        except InputError as error:
            raise InputError(f"{option} {str(error).partition(' ')[2]}") from None

    return check


check_bag = check_with("jepa_ros.bags.reader:check_recording")
check_robot = check_with("jepa_ros.robot.config:load_robot")


def check_task(option: str, name: str) -> None:
    """Check that there is a simulated task of this name."""
    from jepa_ros.sim.tasks import TASKS

    check_choice(list(TASKS))(option, name)


def check_data(option: str, path: Path) -> None:
    """Check that it is a bag, or a directory with a dataset's index."""
    if not (path / "dataset.json").is_file():
        check_bag(option, path)


def check_bags(context: typer.Context, paths: list[Path]) -> list[Path]:
    """Check that at least one is a recording; the command reports the others and continues without them."""
    problems = []
    for path in paths:
        try:
            check_bag("bag", path)
        except InputError as error:
            problems.append(error)
    if paths and len(problems) == len(paths) and not context.resilient_parsing:
        raise problems[0]
    return paths


def check_urdf(option: str, path: Path) -> None:
    """Check that it is a URDF file, expanded from xacro."""
    check_file(option, path)
    try:
        call("jepa_ros.robot.urdf:RobotDescription.from_urdf", call("jepa_ros.robot.files.draft:read_urdf", path))
    except InputError as error:
        raise InputError(f"{option} {path}: {str(error).removeprefix(f'urdf {path}: ')}") from None


def check_image(option: str, path: Path) -> None:
    """Check that it is an image file."""
    import cv2

    check_file(option, path)
    if cv2.imread(str(path)) is None:
        raise InputError(f"{option} {path}: cannot be decoded; give a PNG or JPEG image")


def check_name(option: str, name: str) -> None:
    """Check a name that files and directories are called by."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise InputError(f"{option} '{name}': must be letters, digits, '_', '-' and '.'")


def check_model(option: str, name: str) -> None:
    """Check that it is a model's name or a directory with a valid config.json."""
    check_with("jepa_ros.resources:resolve_model")(option, name)
    check_with("jepa_ros.world_model.config:read_config")(option, resolve_model(name))


def check_device(option: str, device: str) -> None:
    """Check the form of a torch device; whether the machine has it is checked by the command."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", device):
        raise InputError(f"{option} '{device}': expected auto, cpu, cuda or cuda:N")


def option(help: str, *names: str, check: Callable[[str, Any], Any] | None = None, **settings: Any) -> Any:
    """An option with a check. names: "--object" where it is called otherwise than the parameter."""
    return typer.Option(*names, help=help, callback=each(check) if check else None, **settings)


def number(help: str, low: float, high: float = MAX_COUNT) -> Any:
    """An option that takes a number from low to high."""
    return typer.Option(min=low, max=high, help=help)


def argument(help: str, check: Callable[[str, Any], Any] | None = None, **settings: Any) -> Any:
    """A positional argument with a check."""
    return typer.Argument(help=help, callback=each(check) if check else None, **settings)


def choice(help: str, *names: str, **settings: Any) -> Any:
    """An option that takes one of `names`."""
    shown = "|".join(name for name in names if name)
    return option(help, check=check_choice(names), metavar=shown, autocompletion=lambda: list(names), **settings)


def out_directory(help: str) -> Any:
    """An option for an output directory, tried for writing."""
    return option(help, check=lambda name, path: prepare_out(path, name))


def out_file(help: str) -> Any:
    """An option for an output file, tried for writing."""
    return option(help, check=lambda name, path: prepare_file(path, name))


# ----------------------------------------------------------------------------------------------- common options

SEED_HELP = "Seed of the random numbers."
MODEL_HELP = "Model: a name (`jepa_ros models list`) or a checkpoint directory."
ROBOT_HELP = "Robot: a name in config/robots or a YAML file."

Seed = Annotated[int, number(SEED_HELP, 0, MAX_SEED)]
Model = Annotated[str, option(MODEL_HELP, check=check_model, autocompletion=list_models)]
Robot = Annotated[str, option(ROBOT_HELP, check=check_robot, autocompletion=list_robots)]
BagRobot = Annotated[
    str | None,
    option(
        "Robot in the bag; default: the first one that the model was trained for.",
        check=check_robot,
        autocompletion=list_robots,
    ),
]
Device = Annotated[
    str, option("torch device: cpu, cuda or cuda:N; auto: a GPU if torch can use one.", check=check_device)
]
Out = Annotated[Path, out_directory("Output directory for summary.json and report.html.")]
Bag = Annotated[Path, argument("Bag: a rosbag2 directory, or one .mcap or .db3 file.", check=check_bag)]
Bags = Annotated[
    list[Path], typer.Argument(help="Bags: rosbag2 directories, or single .mcap or .db3 files.", callback=check_bags)
]
BagCamera = Annotated[
    list[str], option("Image topic of the bag; repeat for each further view of the model.", check=check_ros_name)
]
SimTask = Annotated[str, option("Simulated task.", check=check_task)]
Workers = Annotated[int, number("Worker processes; each keeps one core busy.", 1, MAX_WORKERS)]
Threads = Annotated[int, number("torch threads; at most the number of free cores.", 1, MAX_WORKERS)]
Namespace = Annotated[str, option("Namespace of the nodes and topics.", check=check_ros_name)]
UseSimTime = Annotated[bool, typer.Option("--use-sim-time", help="Use simulation time (/clock).")]


# ----------------------------------------------------------------------------------------------- the application

GROUP = {"no_args_is_help": True, "pretty_exceptions_enable": False, "rich_markup_mode": None}

app = typer.Typer(
    cls=Application,
    help="Control robot arms with a JEPA world model, on ROS 2.",
    epilog="Exit codes: 0 done, 1 a threshold not met or a run that failed, 2 bad input, 130 interrupted.",
    **GROUP,
)


def _print_version(asked: bool) -> None:
    if asked:
        from jepa_ros import __version__

        typer.echo(f"jepa_ros {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Control robot arms with a JEPA world model, on ROS 2."""

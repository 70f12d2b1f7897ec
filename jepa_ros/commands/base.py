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
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from jepa_ros.bringup.ros_names import check_ros_name
from jepa_ros.errors import InputError
from jepa_ros.reporting.output import prepare_file, prepare_out
from jepa_ros.resources import list_models, list_robots, resolve_model, resolve_robot

UsageError, ClickException = typer.BadParameter.__mro__[1:3]  # of click, or of the copy of it that newer typers hold

PANELS = RUN, ROBOT, MODELS, TRAINING = "Run the graph", "Set up a robot", "Use and evaluate models", "Train models"
"""Headings in the help of `jepa_ros`."""
MAX_SEED = 2**31 - 1
MAX_WORKERS = 256
EXTRAS = {
    "pyarrow": "lerobot",
    "huggingface_hub": "models",
    "transformers": "models",
    "tensorboard": "tensorboard",
}
"""Packages that few commands need, and the extra of setup.py that installs each."""


class Application(TyperGroup):
    """The top-level group: bad input is one line on stderr and exit code 2; Ctrl-C ends with 130."""

    def list_commands(self, context: typer.Context) -> list[str]:
        """Return the commands by heading, in the order of PANELS."""
        return sorted(self.commands, key=lambda name: PANELS.index(self.commands[name].rich_help_panel))

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
    """A command that refuses numbers that are not finite."""

    def invoke(self, context: typer.Context) -> Any:
        for name, value in context.params.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"--{name.replace('_', '-')} {value}: give a finite number")
        return super().invoke(context)


def refuse(text: str) -> int:
    """Print one line for bad input and return the exit code for it."""
    typer.echo(f"jepa_ros: {InputError(text)}", err=True)
    return 2


def usage_text(error: Any) -> str:
    """Return one line for a command line that does not fit the command."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    path = context.command_path if context is not None else "jepa_ros"
    name = option_name(parameter) if parameter is not None else ""
    if type(error).__name__ == "MissingParameter":
        kind = "option" if name.startswith("-") else "argument"
        text = f"missing required {kind} {name}"
    elif name:
        text = f"{name}: {error.message.replace('Input should be', 'must be').rstrip('.')}"
    else:
        text = error.format_message().rstrip(".")
    return f"{path}: {InputError(text)}; see {path} --help"


def option_name(parameter: typer.CallbackParam) -> str:
    """Return "--camera-topic" for an option, "BAGS" for an argument."""
    return max(parameter.opts, key=len) if parameter.opts[0].startswith("-") else parameter.name.upper()


def command(group: typer.Typer, name: str | None = None, panel: str | None = None) -> Callable:
    """Register a function as a command; it returns the exit code, or None for 0. panel: as for `group`."""
    return group.command(name, cls=Command, rich_help_panel=panel)


def call(target: str, **options: Any) -> int | None:
    """Import `module:function` and call it with the options."""
    module, function = target.split(":")
    return getattr(importlib.import_module(module), function)(**options)


def group(name: str, help: str, panel: str) -> typer.Typer:
    """Add a group of commands to the application. panel: the heading that it is listed under."""
    made = typer.Typer(help=help, **GROUP)
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


def check_device(option: str, device: str) -> None:
    """Check the form of a torch device; whether the machine has it is checked by the command."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", device):
        raise InputError(f"{option} '{device}': expected auto, cpu, cuda or cuda:N")


def option(help: str, *names: str, check: Callable[[str, Any], Any] | None = None, **settings: Any) -> Any:
    """An option with a check. names: "--object" where it is called otherwise than the parameter."""
    return typer.Option(*names, help=help, callback=each(check) if check else None, **settings)


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

Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, help=SEED_HELP)]
Model = Annotated[str, option(MODEL_HELP, check=lambda _, name: resolve_model(name), autocompletion=list_models)]
Robot = Annotated[str, option(ROBOT_HELP, check=lambda _, name: resolve_robot(name), autocompletion=list_robots)]
BagRobot = Annotated[
    str | None,
    option(
        "Robot in the bag; default: the first one that the model was trained for.",
        check=lambda _, name: resolve_robot(name),
        autocompletion=list_robots,
    ),
]
Device = Annotated[
    str, option("torch device: cpu, cuda or cuda:N; auto: a GPU if torch can use one.", check=check_device)
]
Out = Annotated[Path, out_directory("Output directory for summary.json and report.html.")]
Bag = Annotated[Path, argument("Bag: a rosbag2 directory, or one .mcap or .db3 file.", check=check_exists)]
Bags = Annotated[list[Path], argument("Bags: rosbag2 directories, or single .mcap or .db3 files.")]
BagCamera = Annotated[
    list[str], option("Image topic of the bag; repeat for each further view of the model.", check=check_ros_name)
]
Workers = Annotated[int, typer.Option(min=1, max=MAX_WORKERS, help="Worker processes, one core each.")]
Threads = Annotated[int, typer.Option(min=1, max=MAX_WORKERS, help="torch threads; at most the number of free cores.")]
Namespace = Annotated[str, option("Namespace of the nodes and topics.", check=check_ros_name)]
UseSimTime = Annotated[bool, typer.Option("--use-sim-time", help="Follow /clock.")]


# ----------------------------------------------------------------------------------------------- the application

GROUP = {"no_args_is_help": True, "pretty_exceptions_enable": False}

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

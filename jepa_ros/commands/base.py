"""What all sub-commands share: the application, its common options, and how they are guarded."""

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from jepa_ros.errors import InputError

GROUP = {"no_args_is_help": True, "add_completion": False, "pretty_exceptions_enable": False}

app = typer.Typer(help="Control arms with a JEPA world model, on ROS 2.", **GROUP)

Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn at random.")]
Model = Annotated[str, typer.Option(help="Name of a model that ships with the package, or a checkpoint's directory.")]
Robot = Annotated[str, typer.Option(help="Name of a robot that ships with the package, or a YAML file.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N; auto: a GPU where torch can use one.")]
Out = Annotated[Path, typer.Option(help="Directory for summary.json and report.html.")]


def guard(function: Callable) -> Callable:
    """The function as a command whose bad input is one line and whose Ctrl-C is no traceback.

    It returns the exit code, or None for 0; from before a sub-command it returns nothing.
    """

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            code = function(*args, **kwargs)
        except InputError as error:
            typer.echo(f"jepa_ros: {error}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        context = kwargs.get("context")
        if context is None or context.invoked_subcommand is None:
            raise typer.Exit(code or 0)

    return guarded


def command(group: typer.Typer, name: str | None = None) -> Callable:
    """Register a guarded function as a sub-command."""
    return lambda function: group.command(name)(guard(function))


def call(target: str, **options: Any) -> int | None:
    """Import `module:function` and call it with the options."""
    module, function = target.split(":")
    return getattr(importlib.import_module(module), function)(**options)


def group(name: str, **settings: Any) -> typer.Typer:
    """A group of sub-commands."""
    made = typer.Typer(**GROUP | settings)
    app.add_typer(made, name=name)
    return made

"""Commands about checkpoints: models, import."""

from pathlib import Path
from typing import Annotated

import typer

from jepa_ros.commands.base import (
    MODEL_HELP,
    MODELS,
    BagCamera,
    BagRobot,
    argument,
    call,
    check_bag,
    check_exists,
    check_file,
    check_model,
    check_name,
    command,
    group,
    number,
    option,
    out_directory,
)
from jepa_ros.resources import list_models

models = group("models", "List, inspect, verify and install checkpoints.", MODELS)
imports = group("import", "Import checkpoints of other code bases.", MODELS)

ModelArgument = Annotated[str, argument(MODEL_HELP, check=check_model, autocompletion=list_models)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CheckpointOut = Annotated[Path, out_directory("Directory for the checkpoint, new or empty.")]


@command(models, "list")
def models_list(as_json: AsJson = False) -> int | None:
    """List the models that ship with the package and those that were installed."""
    return call("jepa_ros.checkpoints.run:print_models", **locals())


@command(models, "inspect")
def models_inspect(
    model: ModelArgument,
    data: Annotated[
        Path | None, option("Bag of `jepa_ros collect`, to analyse the latent space on it.", check=check_bag)
    ] = None,
    out: Annotated[Path, out_directory("Output directory for report.html, latent.png and summary.json.")] = Path(
        "runs/inspect"
    ),
    episodes: Annotated[int, number("Episodes of the bag to use.", 2)] = 100,
    robot: BagRobot = None,
    camera: BagCamera = (),
    as_json: AsJson = False,
) -> int | None:
    """Show a checkpoint's configuration and the robots it fits; with --data also its latent space."""
    return call("jepa_ros.checkpoints.run:inspect_model", **locals())


@command(models, "verify")
def models_verify(model: ModelArgument) -> int | None:
    """Load a checkpoint completely and print a summary."""
    return call("jepa_ros.checkpoints.run:verify_model", **locals())


@command(models, "install")
def models_install(
    source: Annotated[str, typer.Argument(help="Checkpoint directory, or Hugging Face repository owner/name.")],
    name: Annotated[str | None, option("Name to install it under; default: its own.", check=check_name)] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an installed model of that name.")] = False,
) -> int | None:
    """Verify a checkpoint and install it in $JEPA_ROS_HOME/models (~/.local/share/jepa_ros/models), to use by name."""
    return call("jepa_ros.checkpoints.run:install_model", **locals())


@command(imports, "lewm")
def import_lewm(
    path: Annotated[
        Path,
        argument("State dict of stable-worldmodel (.pt, .ckpt, .safetensors), or its directory.", check=check_exists),
    ],
    out: CheckpointOut,
    block: Annotated[int, number("Control ticks per model step.", 1, 1000)] = 5,
    control_rate: Annotated[float, number("Control rate, Hz, which the file does not contain.", 0.1, 1000.0)] = 10.0,
) -> int | None:
    """Import a LeWM checkpoint of stable-worldmodel."""
    call("jepa_ros.world_model.importers.lewm:import_lewm", **locals())
    typer.echo(call("jepa_ros.world_model.checkpoint:verify", path=out))


@command(imports, "vjepa2-ac")
def import_vjepa2_ac(
    path: Annotated[Path, argument("Official checkpoint of V-JEPA 2-AC (vjepa2-ac-vitg.pt).", check=check_file)],
    out: CheckpointOut,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="V-JEPA 2 encoder: a directory in the format of transformers, or a Hugging Face repository; default: "
            "the encoder in the file, converted."
        ),
    ] = None,
    size: Annotated[int, number("Side of an image in pixels, which the file does not contain.", 8, 4096)] = 256,
) -> int | None:
    """Import the official checkpoint of V-JEPA 2-AC."""
    call("jepa_ros.world_model.importers.vjepa2_ac:import_vjepa2_ac", **locals(), allow_download=True)
    typer.echo(call("jepa_ros.world_model.checkpoint:verify", path=out))

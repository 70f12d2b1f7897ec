"""Checkpoints: models, import."""

from pathlib import Path
from typing import Annotated

import typer

from jepa_ros.commands.base import call, command, group

models = group("models", help="List, inspect, verify and install checkpoints.")
imports = group("import", help="Turn checkpoints of other code bases into ours.")

ModelArgument = Annotated[str, typer.Argument(help="Name or directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


@command(models, "list")
def models_list(as_json: AsJson = False) -> int | None:
    """Show the models that ship with the package and those that were installed."""
    return call("jepa_ros.checkpoints.run:print_models", **locals())


@command(models, "inspect")
def models_inspect(
    model: ModelArgument,
    data: Annotated[
        Path | None, typer.Option(help="Bag that `jepa_ros collect` wrote: shows the latent space on it.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory for report.html, latent.png and summary.json.")] = Path(
        "runs/inspect"
    ),
    episodes: Annotated[int, typer.Option(min=2, help="Episodes of the bag to look at.")] = 100,
    robot: Annotated[
        str | None, typer.Option(help="Robot in the bag; default: the one that the model was trained for.")
    ] = None,
    camera: Annotated[
        list[str], typer.Option(help="Image topic of the bag; given again for each further view of the model.")
    ] = (),
    as_json: AsJson = False,
) -> int | None:
    """Show what a checkpoint is and which robots it fits; with --data also what its latents are like."""
    return call("jepa_ros.checkpoints.run:inspect_model", **locals())


@command(models, "verify")
def models_verify(model: ModelArgument) -> int | None:
    """Load a checkpoint completely and say what it is."""
    return call("jepa_ros.checkpoints.run:verify_model", **locals())


@command(models, "install")
def models_install(
    source: Annotated[str, typer.Argument(help="A checkpoint's directory, or a Hugging Face repository: owner/name.")],
    name: Annotated[str | None, typer.Option(help="What to call it; default: the name in its config.json.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another model of that name.")] = False,
) -> int | None:
    """Verify a checkpoint and copy it to where models are found by name ($JEPA_ROS_HOME, ~/.local/share/jepa_ros)."""
    return call("jepa_ros.checkpoints.run:install_model", **locals())


@command(imports, "lewm")
def import_lewm(
    path: Annotated[
        Path, typer.Argument(help="State dict of stable-worldmodel (.pt, .ckpt, .safetensors), or its folder.")
    ],
    out: Annotated[Path, typer.Option(help="Directory for the checkpoint: new, or empty.")],
    block: Annotated[int, typer.Option(min=1, help="Control ticks of a model step.")] = 5,
    control_rate: Annotated[float, typer.Option(help="Control ticks a second, Hz; the file does not say.")] = 10.0,
) -> int | None:
    """Import a LeWM checkpoint of stable-worldmodel."""
    call("jepa_ros.world_model.importers.lewm:import_lewm", **locals())
    typer.echo(call("jepa_ros.world_model.checkpoint:verify", path=out))


@command(imports, "vjepa2-ac")
def import_vjepa2_ac(
    path: Annotated[Path, typer.Argument(help="Official checkpoint of V-JEPA 2-AC (vjepa2-ac-vitg.pt).")],
    out: Annotated[Path, typer.Option(help="Directory for the checkpoint: new, or empty.")],
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Its V-JEPA 2 encoder: a directory in transformers' format, or a Hugging Face repository; default: "
            "the encoder in the file, converted."
        ),
    ] = None,
    size: Annotated[int, typer.Option(min=8, help="Side of an image in pixels; the file does not say.")] = 256,
) -> int | None:
    """Import the official checkpoint of V-JEPA 2-AC."""
    call("jepa_ros.world_model.importers.vjepa2_ac:import_vjepa2_ac", **locals(), allow_download=True)
    typer.echo(call("jepa_ros.world_model.checkpoint:verify", path=out))

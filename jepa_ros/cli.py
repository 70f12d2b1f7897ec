"""The command `jepa_ros`.

Sub-commands import what they need when they are run, so that `--help` is instant and loads no torch, mujoco or rclpy.
Exit codes: 0 done, 1 a threshold not met, 2 bad input (one line on stderr, no traceback), 130 interrupted.
"""

import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from jepa_ros.errors import InputError

_APP = {"no_args_is_help": True, "add_completion": False, "pretty_exceptions_enable": False}

app = typer.Typer(help="Control arms with a JEPA world model, on ROS 2.", **_APP)
evaluate = typer.Typer(help="Measure a model.", **_APP)
up = typer.Typer(help="Start the nodes.", **_APP)
models = typer.Typer(help="List, inspect, verify and install checkpoints.", **_APP)
train = typer.Typer(**_APP | {"no_args_is_help": False})
imports = typer.Typer(help="Turn checkpoints of other code bases into ours.", **_APP)
bench = typer.Typer(help="Measure our code beside that of others.", **_APP)
app.add_typer(train, name="train")
app.add_typer(evaluate, name="evaluate")
app.add_typer(up, name="up")
app.add_typer(models, name="models")
app.add_typer(imports, name="import")
app.add_typer(bench, name="bench")

Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn at random.")]
Model = Annotated[str, typer.Option(help="Name of a model that ships with the package, or a checkpoint's directory.")]
Robot = Annotated[str, typer.Option(help="Name of a robot that ships with the package, or a YAML file.")]
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


@command(app)
def collect(
    out: Annotated[Path, typer.Option(help="Bag to write: a directory that is made, or gone on with.")],
    episodes: Annotated[int, typer.Option(min=1, help="Episodes to record.")] = 500,
    seed: Seed = 0,
    robot: Robot = "openarm",
    width: Annotated[int, typer.Option(min=16, help="Width of camera images, pixels.")] = 320,
    height: Annotated[int, typer.Option(min=16, help="Height of camera images, pixels.")] = 240,
    rate: Annotated[float, typer.Option(min=1.0, help="Camera rate, Hz.")] = 10.0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that record, each with a core.")] = 2,
) -> int | None:
    """Record random play in simulation as a rosbag2 (mcap) bag."""
    return call("jepa_ros.training.collect:run", **locals())


@train.callback(invoke_without_command=True)
@guard
def train_all(
    context: typer.Context,
    data: Annotated[
        Path | None, typer.Option(help="Bag that `jepa_ros collect` wrote.", show_default="required")
    ] = None,
    out: Out = Path("runs/train"),
    recipe: Annotated[
        str, typer.Option(help="Name of a recipe in config/recipes (reach, lewm, ...), or a YAML file.")
    ] = "reach",
    seed: Seed = 0,
    name: Annotated[str, typer.Option(help="Name of the model.")] = "openarm_reach",
    robot: Robot = "openarm",
    updates: Annotated[
        int | None, typer.Option(min=1, help="Updates of the world model; default: the recipe's.")
    ] = None,
    policy_updates: Annotated[
        int | None, typer.Option(min=0, help="Updates of the policy; default: the recipe's.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Frozen encoder: a directory in transformers' format, or a Hugging Face repository."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="torch threads; not more than there are free cores.")] = 1,
    save_every: Annotated[
        float, typer.Option(min=0.0, help="Seconds between states that a stopped run goes on from.")
    ] = 60.0,
) -> int | None:
    """Train a world model and its heads on a recorded bag; goes on where it was interrupted."""
    options = {name: value for name, value in locals().items() if name != "context"}
    if context.invoked_subcommand is None:
        if data is None:
            raise InputError("train: expected a bag after --data, found none")
        return call("jepa_ros.training.train:run", **options)
    for name in options:
        if context.get_parameter_source(name).name == "COMMANDLINE":
            raise InputError(f"train: expected the option {name} after {context.invoked_subcommand}, found it before")


@command(train, "policy")
def train_policy(
    model: Annotated[str, typer.Option(help="Model whose world model stays as it is: a name or a directory.")],
    data: Annotated[Path, typer.Option(help="Bag of play with the model's robot and camera.")],
    objects: Annotated[
        list[str],
        typer.Option("--object", help="NAME=TOPIC (PoseStamped, PointStamped): a probe that reads where it is."),
    ] = (),
    out: Out = Path("runs/policy"),
    camera: Annotated[
        list[str], typer.Option(help="Image topic of the bag; given again for each further view of the model.")
    ] = (),
    robot: Annotated[
        str | None, typer.Option(help="Robot in the bag; default: the one that the model was trained for.")
    ] = None,
    seed: Seed = 0,
    updates: Annotated[int | None, typer.Option(min=1, help="Updates of the heads; default: 6000.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="torch threads; not more than there are free cores.")] = 1,
) -> int | None:
    """Train policy, learned distance and probes on a model that stays as it is."""
    return call("jepa_ros.training.train_policy:run", **locals())


@command(app)
def pretrain(
    bags: Annotated[list[Path], typer.Argument(help="Bags of any robot; only their pictures are read.")],
    out: Annotated[Path, typer.Option(help="Directory for encoder/, summary.json and report.html.")],
    method: Annotated[str, typer.Option(help="vjepa (clips) or ijepa (stills).")] = "vjepa",
    topic: Annotated[list[str], typer.Option(help="Image topic, raw or compressed; may be given again.")] = ("image",),
    size: Annotated[int, typer.Option(min=8, help="Side of a picture that the encoder sees, pixels.")] = 64,
    patch: Annotated[int, typer.Option(min=1, help="Side of a patch, pixels.")] = 8,
    frames: Annotated[int, typer.Option(min=1, help="Frames of a clip (vjepa).")] = 8,
    stride: Annotated[int, typer.Option(min=1, help="Every so many frames of the topic are one of the clip.")] = 1,
    width: Annotated[int, typer.Option(min=8, help="Numbers of a patch's features.")] = 192,
    depth: Annotated[int, typer.Option(min=1, help="Layers of the encoder.")] = 6,
    heads: Annotated[int, typer.Option(min=1, help="Attention heads of a layer.")] = 3,
    updates: Annotated[int, typer.Option(min=1, help="Updates of the encoder.")] = 4000,
    batch: Annotated[int, typer.Option(min=1, help="Clips of an update.")] = 32,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Learning rate at its peak.")] = 2e-4,
    momentum: Annotated[float, typer.Option(min=0.0, max=1.0, help="Momentum of the teacher; rises to 1.")] = 0.998,
    seed: Seed = 0,
    threads: Annotated[int, typer.Option(min=1, help="torch threads; not more than there are free cores.")] = 1,
) -> int | None:
    """Pre-train an encoder on the pictures of bags, without actions; goes on where it was interrupted."""
    return call("jepa_ros.training.pretrain:run", **locals())


@command(app)
def compare(
    data: Annotated[Path, typer.Option(help="Bag that `jepa_ros collect` wrote.")],
    out: Out = Path("runs/compare"),
    recipe: Annotated[str, typer.Option(help="Recipe of the model that all share, as for train.")] = "reach",
    robot: Robot = "openarm",
    methods: Annotated[
        str, typer.Option(help="Names with commas between: sigreg, vicreg, ema, reconstruction, none.")
    ] = "sigreg,vicreg,ema,reconstruction",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method.")] = 3,
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    updates: Annotated[int | None, typer.Option(min=1, help="Updates of a run; default: the recipe's.")] = None,
    tune: Annotated[
        int, typer.Option(min=0, help="Values of its regulariser that each method may try; 0: the published one.")
    ] = 3,
    tune_updates: Annotated[
        int | None, typer.Option(min=1, help="Updates of a try; default: a quarter of a run's.")
    ] = None,
    goals: Annotated[int, typer.Option(min=0, help="Goals to reach in closed loop by each run.")] = 50,
    goal_seed: Annotated[int, typer.Option(help="Seed of these goals.")] = 3000,
    workers: Annotated[int, typer.Option(min=1, help="Runs at a time, each on one core.")] = 2,
) -> int | None:
    """Set ways against collapse side by side on a recorded bag; goes on where it was interrupted."""
    return call("jepa_ros.training.compare:run", **locals())


@command(evaluate, "sim")
def evaluate_sim(
    model: Model = "openarm_reach",
    task: Annotated[str, typer.Option(help="Task to evaluate.")] = "reach",
    goals: Annotated[int, typer.Option(min=1, help="Goals to try.")] = 100,
    seed: Seed = 0,
    out: Out = Path("runs/evaluate"),
) -> int | None:
    """Reach goals in simulation, in process and without ROS, beside random actions and an oracle."""
    return call("jepa_ros.evaluation.sim:run", model=model, task=task, goals=goals, seed=seed, out=out)


CameraTopic = Annotated[str, typer.Option(help="Topic of the camera's images.")]
ParamsFile = Annotated[Path | None, typer.Option(help="ROS parameters of all nodes; default: config/<bring-up>.yaml.")]
Namespace = Annotated[str, typer.Option(help="Namespace of all nodes and topics.")]
UseSimTime = Annotated[bool, typer.Option("--use-sim-time", help="Follow /clock.")]
Respawn = Annotated[bool, typer.Option("--respawn", help="Start a node again when it ends.")]
LogLevel = Annotated[str, typer.Option(help="debug, info, warn, error or fatal.")]


@command(up, "sim")
def up_sim(
    robot: Robot = "openarm",
    model: Model = "openarm_reach",
    camera_topic: CameraTopic = "image",
    params_file: ParamsFile = None,
    namespace: Namespace = "",
    use_sim_time: UseSimTime = False,
    respawn: Respawn = False,
    log_level: LogLevel = "info",
) -> int | None:
    """Start the simulator and all nodes from config/sim.yaml, as launch/sim.launch.py does."""
    return call("jepa_ros.ros.up:run", bringup="sim", **locals())


@command(up, "robot")
def up_robot(
    robot: Robot = "openarm",
    model: Model = "openarm_reach",
    camera_topic: CameraTopic = "image",
    params_file: ParamsFile = None,
    namespace: Namespace = "",
    use_sim_time: UseSimTime = False,
    respawn: Respawn = False,
    log_level: LogLevel = "info",
) -> int | None:
    """Start the nodes for hardware from config/robot.yaml, as launch/robot.launch.py does."""
    return call("jepa_ros.ros.up:run", bringup="robot", **locals())


@command(app)
def demo(
    goals: Annotated[int, typer.Option(help="Goal images to send, at least 1.")] = 20,
    seed: Seed = 0,
    out: Out = Path("runs/demo"),
    model: Model = "openarm_reach",
    headless: Annotated[bool, typer.Option("--headless", help="Plain lines in place of the live display.")] = False,
) -> int | None:
    """Start the whole graph in simulation and reach goal images that training never saw."""
    return call("jepa_ros.ros.demo:run", goals=goals, seed=seed, out=out, model=model, headless=headless)


ModelArgument = Annotated[str, typer.Argument(help="Name or directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


@command(models, "list")
def models_list(as_json: AsJson = False) -> int | None:
    """Show the models that ship with the package and those that were installed."""
    return call("jepa_ros.models.commands:list_models", **locals())


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
    return call("jepa_ros.models.commands:inspect", **locals())


@command(models, "verify")
def models_verify(model: ModelArgument) -> int | None:
    """Load a checkpoint completely and say what it is."""
    return call("jepa_ros.models.commands:verify", **locals())


@command(models, "install")
def models_install(
    source: Annotated[str, typer.Argument(help="A checkpoint's directory, or a Hugging Face repository: owner/name.")],
    name: Annotated[str | None, typer.Option(help="What to call it; default: the name in its config.json.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another model of that name.")] = False,
) -> int | None:
    """Verify a checkpoint and copy it to where models are found by name ($JEPA_ROS_HOME, ~/.local/share/jepa_ros)."""
    return call("jepa_ros.models.commands:install", **locals())


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


@command(bench, "plan")
def bench_plan(
    against: Annotated[str, typer.Option(help="Whose planning to measure beside: stable-worldmodel.")],
    out: Out = Path("runs/bench_plan"),
    model: Model = "openarm_reach",
    starts: Annotated[int, typer.Option(min=0, help="Starts and goals in simulation; 0: none.")] = 100,
    seed: Seed = 0,
    repeats: Annotated[int, typer.Option(min=1, help="Pairs of plans of the published sizes.")] = 5,
    device: Annotated[str, typer.Option(help="cpu, or cuda for plans on a GPU as well.")] = "cpu",
    table: Annotated[Path | None, typer.Option(help="Markdown file for the figures.")] = None,
    fail_on_miss: Annotated[bool, typer.Option("--fail-on-miss", help="Exit code 1 where a target is missed.")] = False,
) -> int | None:
    """Time our planning and the reference's in turns: the same work, the same costs, the same quality."""
    return call("jepa_ros.bench.plan:run", **locals())


def main() -> None:
    """Entry point of the console script."""
    try:
        app(prog_name="jepa_ros")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

"""Commands from recordings to models: collect, train, pretrain, compare methods."""

from pathlib import Path
from typing import Annotated

import typer

from jepa_ros.bringup.ros_names import check_ros_name
from jepa_ros.commands.base import (
    TRAINING,
    BagCamera,
    BagRobot,
    Bags,
    Device,
    Model,
    Namespace,
    Out,
    Robot,
    Seed,
    Threads,
    UseSimTime,
    Workers,
    app,
    call,
    check_exists,
    choice,
    command,
    group,
    option,
    out_directory,
)
from jepa_ros.commands.evaluation import compare
from jepa_ros.errors import InputError

collect = group("collect", "Collect training data, in simulation or on a running arm.", TRAINING)
train = group("train", "Train a world model, or new heads for one.", TRAINING)

METHODS = ("sigreg", "vicreg", "ema", "reconstruction", "none")

Data = Annotated[Path, option("Bag of `jepa_ros collect`, or dataset of `jepa_ros data build`.", check=check_exists)]
Updates = Annotated[int | None, typer.Option(min=1, help="Updates; default: the recipe's.")]
ObjectTopics = Annotated[
    list[str],
    typer.Option("--object", help="NAME=TOPIC (PoseStamped or PointStamped) of an object; repeat for several."),
]


@command(collect, "sim")
def collect_sim(
    out: Annotated[Path, out_directory("Output bag directory (created, or resumed).")],
    episodes: Annotated[int, typer.Option(min=1, help="Number of episodes.")] = 500,
    seed: Seed = 0,
    robot: Robot = "openarm",
    width: Annotated[int, typer.Option(min=16, max=4096, help="Width of the camera images, pixels.")] = 320,
    height: Annotated[int, typer.Option(min=16, max=4096, help="Height of the camera images, pixels.")] = 240,
    rate: Annotated[float, typer.Option(min=1.0, max=1000.0, help="Camera rate, Hz.")] = 10.0,
    workers: Workers = 2,
) -> int | None:
    """Record random motion in simulation as a rosbag2 (mcap) bag; resumes an interrupted run."""
    return call("jepa_ros.collecting.simulated:collect_simulated", **locals())


JOY_OPTIONS = ("axes", "hold_button", "end_button")


@command(collect, "live")
def collect_live(
    context: typer.Context,
    out: Out = Path("runs/collect"),
    mode: Annotated[
        str,
        choice("play: random motion; joy, twist: teleoperation by Joy or TwistStamped.", "play", "joy", "twist"),
    ] = "play",
    episodes: Annotated[
        int | None, typer.Option(min=1, help="Number of episodes; default: 20 (play), unlimited (teleoperation).")
    ] = None,
    seed: Seed = 0,
    robot: Robot = "openarm",
    ticks: Annotated[int | None, typer.Option(min=1, help="Episode length in ticks; default: 60 (play).")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, max=3600.0, help="Episode length in seconds (alternative to --ticks).")
    ] = None,
    box: Annotated[
        str, typer.Option(help="xmin,xmax,ymin,ymax in m: limits of the motion; default: the robot's workspace.")
    ] = "",
    reset: Annotated[
        str, typer.Option(help="x,y in m where episodes start (play: near it); default: the middle of the limits.")
    ] = "",
    topic: Annotated[str, option("Topic of Joy or TwistStamped; default: joy or twist.", check=check_ros_name)] = "",
    axes: Annotated[str, typer.Option(help="joy: axes for x and y of the base frame.")] = "1,0",
    hold_button: Annotated[int, typer.Option(min=0, help="joy: dead-man button, held while the arm may move.")] = 4,
    end_button: Annotated[int, typer.Option(min=0, help="joy: button that ends the episode.")] = 1,
    namespace: Namespace = "",
    use_sim_time: UseSimTime = False,
) -> int | None:
    """Move the arm of a running graph, at random or by teleoperation; run `jepa_ros record` beside it."""
    options = locals()
    _check_mode_options(options.pop("context"), mode)
    return call("jepa_ros.collecting.live:collect_live", **options)


def _check_mode_options(context: typer.Context, mode: str) -> None:
    """Raise InputError if an option was given that has no meaning in the mode."""
    meaningless = {"play": (*JOY_OPTIONS, "topic"), "joy": ("seed",), "twist": (*JOY_OPTIONS, "seed")}[mode]
    for name in meaningless:
        if context.get_parameter_source(name).name == "COMMANDLINE":
            flag = f"--{name.replace('_', '-')}"
            needs = "play" if name == "seed" else "joy or twist" if name == "topic" else "joy"
            raise InputError(f"collect live: {flag} requires --mode {needs}")


@command(train, "model")
def train_model(
    data: Data,
    out: Out = Path("runs/train"),
    recipe: Annotated[str, typer.Option(help="Recipe: a name in config/recipes (reach, lewm, ...) or a YAML file.")] = (
        "reach"
    ),
    seed: Seed = 0,
    name: Annotated[str, typer.Option(help="Name of the model.")] = "openarm_reach",
    robot: Robot = "openarm",
    updates: Updates = None,
    policy_updates: Annotated[
        int | None, typer.Option(min=0, help="Updates of the policy; default: the recipe's.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Frozen encoder: a directory in the format of transformers, or a Hugging Face repository."),
    ] = None,
    threads: Threads = 1,
    device: Device = "auto",
    save_every: Annotated[
        float, typer.Option(min=0.0, max=1e6, help="Seconds between saved states, from which a run resumes.")
    ] = 60.0,
) -> int | None:
    """Train a world model and its heads; resumes an interrupted run."""
    return call("jepa_ros.training.train_model:train_model", **locals())


@command(train, "heads")
def train_heads(
    model: Model,
    data: Data,
    objects: ObjectTopics = (),
    out: Out = Path("runs/policy"),
    camera: BagCamera = (),
    robot: BagRobot = None,
    seed: Seed = 0,
    updates: Annotated[int | None, typer.Option(min=1, help="Updates of the heads; default: 6000.")] = None,
    probes_only: Annotated[
        bool, typer.Option("--probes-only", help="Fit the probes only; keep policy and learned distance.")
    ] = False,
    threads: Threads = 1,
) -> int | None:
    """Train policy, learned distance and probes for a world model, which is not changed."""
    return call("jepa_ros.training.train_heads:train_heads", **locals())


@command(app, panel=TRAINING)
def pretrain(
    bags: Bags,
    out: Annotated[
        Path,
        out_directory("Output directory for encoder/, summary.json and report.html."),
    ],
    method: Annotated[str, choice("vjepa: clips; ijepa: single images.", "vjepa", "ijepa")] = "vjepa",
    topic: Annotated[list[str], option("Image topic, raw or compressed; repeat for several.", check=check_ros_name)] = (
        "image",
    ),
    size: Annotated[int, typer.Option(min=8, max=1024, help="Side of the encoder's images, pixels.")] = 64,
    patch: Annotated[int, typer.Option(min=1, max=1024, help="Side of a patch, pixels.")] = 8,
    frames: Annotated[int, typer.Option(min=1, max=1024, help="Frames of a clip (vjepa).")] = 8,
    stride: Annotated[int, typer.Option(min=1, help="Frame stride within a clip.")] = 1,
    width: Annotated[int, typer.Option(min=8, max=8192, help="Feature dimension of a patch.")] = 192,
    depth: Annotated[int, typer.Option(min=1, max=128, help="Layers of the encoder.")] = 6,
    heads: Annotated[int, typer.Option(min=1, max=128, help="Attention heads of a layer.")] = 3,
    updates: Annotated[int, typer.Option(min=1, help="Updates of the encoder.")] = 4000,
    batch: Annotated[int, typer.Option(min=1, max=65536, help="Clips in a batch.")] = 32,
    learning_rate: Annotated[float, typer.Option(min=0.0, max=10.0, help="Peak learning rate.")] = 2e-4,
    momentum: Annotated[float, typer.Option(min=0.0, max=1.0, help="Initial momentum of the teacher; rises to 1.")] = (
        0.998
    ),
    seed: Seed = 0,
    threads: Threads = 1,
    device: Device = "auto",
) -> int | None:
    """Pre-train an encoder on the images of bags of any robot, without actions; resumes an interrupted run."""
    return call("jepa_ros.training.pretraining.run:pretrain", **locals())


@command(compare, "methods")
def compare_methods(
    data: Data,
    out: Out = Path("runs/compare_methods"),
    recipe: Annotated[str, typer.Option(help="Recipe of the model, the same for all methods.")] = "reach",
    robot: Robot = "openarm",
    methods: Annotated[str, typer.Option(help=f"Comma-separated, of {', '.join(METHODS)}.")] = ",".join(METHODS[:4]),
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Runs of each method.")] = 3,
    seed: Seed = 0,
    updates: Updates = None,
    tune: Annotated[
        int, typer.Option(min=0, max=1000, help="Regulariser weights to try for each method; 0: the published one.")
    ] = 3,
    tune_updates: Annotated[
        int | None, typer.Option(min=1, help="Updates of a tuning run; default: a quarter of a run's.")
    ] = None,
    goals: Annotated[int, typer.Option(min=0, help="Closed-loop goals for each run.")] = 50,
    goal_seed: Seed = 3000,
    workers: Workers = 2,
) -> int | None:
    """Train anti-collapse methods on one bag and compare them; resumes an interrupted run. --seed is the first seed."""
    return call("jepa_ros.training.method_comparison.run:compare_methods", **locals())

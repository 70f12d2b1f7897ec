"""Commands from recordings to models: collect, train, pretrain, compare methods."""

from pathlib import Path
from typing import Annotated

import typer

from jepa_ros.bringup.ros_names import check_ros_name
from jepa_ros.commands.base import (
    MAX_SEED,
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
    SimTask,
    Threads,
    UseSimTime,
    Workers,
    app,
    call,
    check_choice,
    check_data,
    check_name,
    check_with,
    choice,
    command,
    group,
    number,
    option,
    out_directory,
)
from jepa_ros.commands.evaluation import compare
from jepa_ros.errors import InputError

collect = group("collect", "Collect training data, in simulation or on a running arm.", TRAINING)
train = group("train", "Train a world model, or new heads for one.", TRAINING)

METHODS = ("sigreg", "vicreg", "ema", "reconstruction", "none")


def check_object(option: str, text: str) -> None:
    """Check that it is NAME=TOPIC."""
    check_with("jepa_ros.datasets.mapping:parse_objects")(option, [text])


def check_methods(option: str, names: str) -> None:
    """Check comma-separated names of METHODS."""
    for name in names.split(","):
        check_choice(METHODS)(option, name)


Data = Annotated[Path, option("Bag of `jepa_ros collect`, or dataset of `jepa_ros data build`.", check=check_data)]
Recipe = Annotated[
    str,
    option(
        "Recipe: a name in config/recipes (reach, lewm, ...) or a YAML file.",
        check=check_with("jepa_ros.training.recipe:read_recipe"),
    ),
]
Updates = Annotated[int | None, number("Training updates; default: the recipe's.", 1)]
ObjectTopics = Annotated[
    list[str],
    option(
        "NAME=TOPIC (PoseStamped or PointStamped) of an object; repeat for several.", "--object", check=check_object
    ),
]


@command(collect, "sim")
def collect_sim(
    out: Annotated[Path, out_directory("Output bag directory (created, or resumed).")],
    episodes: Annotated[int, number("Number of episodes.", 1)] = 500,
    seed: Seed = 0,
    robot: Robot = "openarm",
    width: Annotated[int, number("Width of the camera images, pixels.", 16, 4096)] = 320,
    height: Annotated[int, number("Height of the camera images, pixels.", 16, 4096)] = 240,
    rate: Annotated[float, number("Camera rate, Hz.", 1.0, 1000.0)] = 10.0,
    task: SimTask = "reach",
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
        int | None,
        number("Number of episodes; default: 20 (play), unlimited (teleoperation).", 1),
    ] = None,
    seed: Seed = 0,
    robot: Robot = "openarm",
    ticks: Annotated[int | None, number("Episode length in control ticks; default: 60 (play).", 1)] = None,
    seconds: Annotated[float | None, number("Episode length in seconds (alternative to --ticks).", 0.1, 3600.0)] = None,
    box: Annotated[
        str,
        typer.Option(
            help="xmin,xmax,ymin,ymax (in space also zmin,zmax) in m: limits of the motion; default: the workspace."
        ),
    ] = "",
    reset: Annotated[
        str, typer.Option(help="x,y (in space x,y,z) in m where episodes start (play: near it); default: the middle.")
    ] = "",
    topic: Annotated[str, option("Topic of Joy or TwistStamped; default: joy or twist.", check=check_ros_name)] = "",
    axes: Annotated[
        str | None,
        typer.Option(help="joy: indices of the axes that move the tool in x, y, z, yaw; default: of 1,0,4,3."),
    ] = None,
    hold_button: Annotated[int, number("joy: dead-man button, held while the arm may move.", 0)] = 4,
    end_button: Annotated[int, number("joy: button that ends the episode.", 0)] = 1,
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
    recipe: Recipe = "reach",
    seed: Seed = 0,
    name: Annotated[str | None, option("Name of the model; default: ROBOT_reach.", check=check_name)] = None,
    robot: Robot = "openarm",
    updates: Updates = None,
    policy_updates: Annotated[int | None, number("Updates of the policy; default: the recipe's.", 0)] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Frozen encoder: a directory in the format of transformers, or a Hugging Face repository."),
    ] = None,
    threads: Threads = 1,
    device: Device = "auto",
    save_every: Annotated[float, number("Seconds between saved states, from which a run resumes.", 0.0, 1e6)] = 60.0,
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
    updates: Annotated[int | None, number("Updates of the heads; default: 6000.", 1)] = None,
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
    size: Annotated[int, number("Side of the encoder's images, pixels.", 8, 1024)] = 64,
    patch: Annotated[int, number("Side of a patch, pixels.", 1, 1024)] = 8,
    frames: Annotated[int, number("Frames of a clip (vjepa).", 1, 1024)] = 8,
    stride: Annotated[int, number("Frame stride within a clip.", 1)] = 1,
    width: Annotated[int, number("Feature dimension of a patch.", 8, 8192)] = 192,
    depth: Annotated[int, number("Layers of the encoder.", 1, 128)] = 6,
    heads: Annotated[int, number("Attention heads of a layer.", 1, 128)] = 3,
    updates: Annotated[int, number("Updates of the encoder.", 1)] = 4000,
    batch: Annotated[int, number("Clips in a batch.", 1, 65536)] = 32,
    learning_rate: Annotated[float, number("Peak learning rate.", 0.0, 10.0)] = 2e-4,
    momentum: Annotated[float, number("Initial momentum of the teacher; rises to 1.", 0.0, 1.0)] = (0.998),
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
    recipe: Recipe = "reach",
    robot: Robot = "openarm",
    methods: Annotated[str, option(f"Comma-separated, of {', '.join(METHODS)}.", check=check_methods)] = ",".join(
        METHODS[:4]
    ),
    seeds: Annotated[int, number("Runs of each method.", 1, 1000)] = 3,
    seed: Seed = 0,
    updates: Updates = None,
    tune: Annotated[
        int, number("Values of the regulariser's weight to try for each method; 0: only the published one.", 0, 1000)
    ] = 3,
    tune_updates: Annotated[int | None, number("Updates of a tuning run; default: a quarter of a run's.", 1)] = None,
    goals: Annotated[int, number("Closed-loop goals for each run.", 0)] = 50,
    goal_seed: Annotated[int, number("Seed of the closed-loop goals.", 0, MAX_SEED)] = 3000,
    workers: Workers = 2,
) -> int | None:
    """Train anti-collapse methods on one bag and compare them; resumes an interrupted run. --seed is the first seed."""
    return call("jepa_ros.training.method_comparison.run:compare_methods", **locals())

"""From recordings to models: collect, train, pretrain, compare."""

from pathlib import Path
from typing import Annotated

import typer

from jepa_ros.commands.base import Device, Out, Robot, Seed, app, call, command, group, guard
from jepa_ros.errors import InputError

train = group("train", no_args_is_help=False)

Threads = Annotated[int, typer.Option(min=1, help="torch threads; not more than there are free cores.")]


@command(app)
def collect(
    context: typer.Context,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Bag to write: a directory that is made, or gone on with. Live: directory for summary.json and "
            "report.html; default: runs/collect.",
            show_default="required",
        ),
    ] = None,
    episodes: Annotated[
        int | None, typer.Option(min=1, help="Episodes to record; default: 500, 20 of live play, no end of the rest.")
    ] = None,
    seed: Seed = 0,
    robot: Robot = "openarm",
    width: Annotated[int, typer.Option(min=16, help="Width of camera images, pixels.")] = 320,
    height: Annotated[int, typer.Option(min=16, help="Height of camera images, pixels.")] = 240,
    rate: Annotated[float, typer.Option(min=1.0, help="Camera rate, Hz.")] = 10.0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that record, each with a core.")] = 2,
    live: Annotated[
        bool, typer.Option("--live", help="Drive the arm of the running graph; `jepa_ros record` runs beside it.")
    ] = False,
    mode: Annotated[str, typer.Option(help="Live: play, joy (sensor_msgs/Joy) or twist (TwistStamped).")] = "play",
    ticks: Annotated[int | None, typer.Option(min=1, help="Live: ticks of an episode; default: 60 of play.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Live: the same in s.")] = None,
    box: Annotated[
        str, typer.Option(help="Live: xmin,xmax,ymin,ymax in m, what the arm is kept in; default: its workspace.")
    ] = "",
    reset: Annotated[
        str, typer.Option(help="Live: x,y in m, where episodes begin (play: around it); default: the middle.")
    ] = "",
    topic: Annotated[str, typer.Option(help="Live: topic of Joy or TwistStamped; default: joy or twist.")] = "",
    axes: Annotated[str, typer.Option(help="Live, joy: the axes that mean x and y of the base frame.")] = "1,0",
    hold_button: Annotated[int, typer.Option(min=0, help="Live, joy: held while the arm may move.")] = 4,
    end_button: Annotated[int, typer.Option(min=0, help="Live, joy: ends the episode.")] = 1,
    namespace: Annotated[str, typer.Option(help="Live: namespace of the nodes.")] = "",
    use_sim_time: Annotated[bool, typer.Option("--use-sim-time", help="Live: follow /clock.")] = False,
) -> int | None:
    """Record random play in simulation as a rosbag2 (mcap) bag; or drive a live arm by play or by hand."""
    given = locals()
    given.pop("context")
    _expect_fitting(context, live, mode)
    given.pop("live")
    if live:
        given["out"] = out or Path("runs/collect")
        return call("jepa_ros.collecting.live:run", **{k: v for k, v in given.items() if k not in _SIMULATED})
    if out is None:
        raise InputError("collect: expected a bag after --out, found none")
    given["episodes"] = 500 if episodes is None else episodes
    return call("jepa_ros.collecting.simulated:run", **{k: v for k, v in given.items() if k not in _LIVE})


_SIMULATED = ("width", "height", "rate", "workers")
_JOY = ("axes", "hold_button", "end_button")
_LIVE = ("mode", "ticks", "seconds", "box", "reset", "topic", *_JOY, "namespace", "use_sim_time")


def _expect_fitting(context: typer.Context, live: bool, mode: str) -> None:
    """Raise InputError where an option was given that means nothing in the mode."""
    what = f"--live --mode {mode}" if live else "simulation (no --live)"
    strangers = _SIMULATED if live else _LIVE
    if live and mode != "joy":
        strangers += _JOY
    if live:
        strangers += ("topic",) if mode == "play" else ("seed",)
    for name in strangers:
        if context.get_parameter_source(name).name == "COMMANDLINE":
            raise InputError(f"collect: expected no --{name.replace('_', '-')} for {what}; found it")


@train.callback(invoke_without_command=True)
@guard
def train_all(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Bag that `jepa_ros collect` wrote, or dataset that `jepa_ros data build` made.",
            show_default="required",
        ),
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
    threads: Threads = 1,
    device: Device = "auto",
    save_every: Annotated[
        float, typer.Option(min=0.0, help="Seconds between states that a stopped run goes on from.")
    ] = 60.0,
) -> int | None:
    """Train a world model and its heads on a recorded bag; goes on where it was interrupted."""
    options = {name: value for name, value in locals().items() if name != "context"}
    if context.invoked_subcommand is None:
        if data is None:
            raise InputError("train: expected a bag after --data, found none")
        return call("jepa_ros.training.train_model:train_model", **options)
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
    probes_only: Annotated[
        bool, typer.Option("--probes-only", help="Fit the probes alone; policy and learned distance stay.")
    ] = False,
    threads: Threads = 1,
) -> int | None:
    """Train policy, learned distance and probes on a model that stays as it is."""
    return call("jepa_ros.training.train_heads:train_heads", **locals())


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
    threads: Threads = 1,
    device: Device = "auto",
) -> int | None:
    """Pre-train an encoder on the pictures of bags, without actions; goes on where it was interrupted."""
    return call("jepa_ros.training.pretraining.run:pretrain", **locals())


@command(app)
def compare(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Directories that `evaluate bag` or `evaluate sim` wrote: each is set beside the first."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Without RUNS: bag that `jepa_ros collect` wrote.")] = None,
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
    """Set finished evaluations side by side, or train ways against collapse on a bag (--data) and set those so."""
    options = locals()
    if (runs := options.pop("runs")) and data is not None:
        raise InputError("compare: expected either runs or --data, found both")
    if runs:
        return call("jepa_ros.evaluation.runs.compare:compare_runs", runs=runs, seed=seed, out=out)
    if data is None:
        raise InputError("compare: expected runs to set side by side, or a bag after --data, found neither")
    return call("jepa_ros.training.method_comparison.run:compare_methods", **options)

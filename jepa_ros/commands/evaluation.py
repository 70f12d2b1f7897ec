"""Commands that measure: evaluate, compare runs, bench."""

from pathlib import Path
from typing import Annotated

import typer

from jepa_ros import planning
from jepa_ros.bringup.ros_names import check_ros_name
from jepa_ros.commands.base import (
    MODELS,
    BagCamera,
    BagRobot,
    Bags,
    Device,
    Model,
    Out,
    Seed,
    SimTask,
    Workers,
    argument,
    call,
    check_directory,
    check_urdf,
    check_with,
    choice,
    command,
    group,
    number,
    option,
    out_file,
)

evaluate = group("evaluate", "Evaluate a model, in simulation or on recordings.", MODELS)
compare = group("compare", "Compare evaluation runs or training methods.", MODELS)
bench = group("bench", "Benchmark against reference implementations.", MODELS)

THRESHOLDS = "jepa_ros.evaluation.bag.output.summary"


Solver = Annotated[str, choice("Solver of the planner.", *planning.SOLVERS)]
Policy = Annotated[
    str,
    choice(
        "How the planner uses the learned policy: as a start of the search, before it, alone, or not.",
        *planning.POLICY_MODES,
    ),
]
Metric = Annotated[str, choice("Distance between latents; reachability: the learned one.", *planning.METRICS)]


@command(evaluate, "sim")
def evaluate_sim(
    model: Model = "openarm_reach",
    task: SimTask = "reach",
    goals: Annotated[int, number("Number of goals.", 1)] = 100,
    seed: Seed = 0,
    out: Out = Path("runs/evaluate"),
    robot: BagRobot = None,
    solver: Solver = "icem",
    policy: Policy = "policy_first",
    metric: Metric = "l2",
    timeout: Annotated[
        float, number("Time limit for each goal, s, including 1 s in which it is held.", 1.0, 3600.0)
    ] = 15.0,
    baselines: Annotated[bool, typer.Option(help="Run the baselines as well: random actions and an oracle.")] = True,
    workers: Workers = 2,
) -> int | None:
    """Reach goals in simulation, without ROS, and compare with random actions and an oracle."""
    return call("jepa_ros.evaluation.sim:run_sim_evaluation", **locals())


@command(evaluate, "bag")
def evaluate_bag(
    bags: Bags,
    model: Model = "openarm_reach",
    seed: Seed = 0,
    out: Out = Path("runs/evaluate_bag"),
    robot: BagRobot = None,
    camera: BagCamera = (),
    joint_states: Annotated[
        str, option("Topic of the joint states; default: the only one of its type.", check=check_ros_name)
    ] = "",
    executed: Annotated[
        str, option("Topic of the executed actions; default: the only one of its type.", check=check_ros_name)
    ] = "",
    description: Annotated[
        Path | None, option("URDF file, for bags without robot_description.", check=check_urdf)
    ] = None,
    horizon: Annotated[int, number("Model steps to predict and plan.", 1, 32)] = 5,
    plan_states: Annotated[int, number("States of each bag to plan from, evenly spaced.", 0, 10**6)] = 50,
    solver: Solver = "icem",
    policy: Policy = "policy_first",
    metric: Metric = "l2",
    workers: Annotated[int, number("Threads that decode images; does not change the results.", 0, 64)] = 2,
    device: Device = "cpu",
    result: Annotated[
        bool, typer.Option(help="Write result.mcap: inputs, latents, surprise and plans of each bag.")
    ] = True,
    fail_if: Annotated[
        list[str],
        option(
            "Exit code 1 if true, e.g. 'prediction_ratio@3>0.5'; repeat for several.",
            check=check_with(f"{THRESHOLDS}:parse_threshold"),
        ),
    ] = (),
    thresholds: Annotated[
        Path | None,
        option(
            "YAML file with a list fail_if of such lines (config/evaluation/thresholds.yaml).",
            check=check_with(f"{THRESHOLDS}:read_thresholds"),
        ),
    ] = None,
) -> int | None:
    """Evaluate a model on recordings, without ROS; deterministic."""
    options = locals()
    options["thresholds_file"] = options.pop("thresholds")
    return call("jepa_ros.evaluation.bag.evaluate:run_bag_evaluation", **options)


@command(compare, "runs")
def compare_runs(
    runs: Annotated[
        list[Path],
        argument(
            "Output directories of `evaluate bag` or `evaluate sim`; the first is the baseline.", check=check_directory
        ),
    ],
    seed: Seed = 0,
    out: Out = Path("runs/compare"),
) -> int | None:
    """Compare evaluation runs on the same bags or goals, each with the first, with confidence intervals."""
    return call("jepa_ros.evaluation.compare_runs:compare_runs", **locals())


@command(bench, "offline")
def bench_offline(
    out: Out = Path("runs/offline"),
    goals: Annotated[int, number("Goals for each model.", 1)] = 200,
    seed: Seed = 5,
    workers: Workers = 2,
) -> int | None:
    """Test whether the offline score of a bag predicts success on goals; resumes an interrupted run."""
    return call("jepa_ros.bench.offline_score:benchmark_offline_score", **locals())


@command(bench, "plan")
def bench_plan(
    against: Annotated[str, choice("Reference implementation, installed beside jepa_ros.", "stable-worldmodel")],
    out: Out = Path("runs/bench_plan"),
    model: Model = "openarm_reach",
    starts: Annotated[int, number("Pairs of start and goal to plan for in simulation; 0: none.", 0)] = 100,
    seed: Seed = 0,
    repeats: Annotated[int, number("Timed plans of each planner, at the published model sizes.", 1)] = 5,
    device: Annotated[str, choice("cuda: also time plans on a GPU.", "cpu", "cuda")] = "cpu",
    table: Annotated[Path | None, out_file("Also write the figures to this Markdown file.")] = None,
    fail_on_miss: Annotated[bool, typer.Option("--fail-on-miss", help="Exit code 1 if a target is missed.")] = False,
) -> int | None:
    """Compare speed and quality of our planner with a reference implementation, in turns on one thread."""
    return call("jepa_ros.bench.planning:benchmark_planning", **locals())

"""What models and planners are worth: evaluate, bench."""

from pathlib import Path
from typing import Annotated

import typer

from jepa_ros import planning
from jepa_ros.commands.base import Device, Model, Out, Seed, call, command, group

evaluate = group("evaluate", help="Measure a model.")
bench = group("bench", help="Measure our code beside that of others.")

Solver = Annotated[str, typer.Option(help=f"Search algorithm: {', '.join(planning.SOLVERS)}.")]
Policy = Annotated[str, typer.Option(help=f"Use of the fast policy: {', '.join(planning.POLICY_MODES)}.")]
Metric = Annotated[str, typer.Option(help=f"Latent distance: {', '.join(planning.METRICS)}.")]


@command(evaluate, "sim")
def evaluate_sim(
    model: Model = "openarm_reach",
    task: Annotated[str, typer.Option(help="Task to evaluate.")] = "reach",
    goals: Annotated[int, typer.Option(min=1, help="Goals to try.")] = 100,
    seed: Seed = 0,
    out: Out = Path("runs/evaluate"),
    solver: Solver = "icem",
    policy: Policy = "policy_first",
    metric: Metric = "l2",
    timeout: Annotated[
        float, typer.Option(min=1.0, help="Seconds that a goal may take, the one in which it is held included.")
    ] = 15.0,
    baselines: Annotated[bool, typer.Option(help="Try the goals at random and by an oracle as well.")] = True,
    workers: Annotated[int, typer.Option(min=1, help="Processes that try goals, each with a core.")] = 2,
) -> int | None:
    """Reach goals in simulation, in process and without ROS, beside random actions and an oracle."""
    return call("jepa_ros.evaluation.sim:run_sim_evaluation", **locals())


@command(evaluate, "bag")
def evaluate_bag(
    bags: Annotated[list[Path], typer.Argument(help="rosbag2 directories, or single .mcap or .db3 files.")],
    model: Model = "openarm_reach",
    seed: Seed = 0,
    out: Out = Path("runs/evaluate_bag"),
    robot: Annotated[
        str | None, typer.Option(help="Robot in the bags; default: the first that the model was trained for.")
    ] = None,
    camera: Annotated[
        list[str], typer.Option(help="Image topic; given again for each further view of the model.")
    ] = (),
    joint_states: Annotated[str, typer.Option(help="Topic of joint states; default: the one there is.")] = "",
    executed: Annotated[str, typer.Option(help="Topic of executed actions; default: the one there is.")] = "",
    description: Annotated[Path | None, typer.Option(help="URDF file, for bags without robot_description.")] = None,
    horizon: Annotated[int, typer.Option(min=1, max=32, help="Model steps that are predicted and planned.")] = 5,
    plan_states: Annotated[
        int, typer.Option(min=0, help="States of each bag that are planned from, evenly spread.")
    ] = 50,
    solver: Solver = "icem",
    policy: Policy = "policy_first",
    metric: Metric = "l2",
    workers: Annotated[
        int, typer.Option(min=0, max=64, help="Threads that decode pictures; the results are the same.")
    ] = 2,
    device: Device = "cpu",
    result: Annotated[
        bool, typer.Option(help="Write latents, surprise and plans beside the inputs as result.mcap.")
    ] = True,
    fail_if: Annotated[
        list[str],
        typer.Option(help="Exit code 1 where a figure is so: 'prediction_ratio@3>0.5'; may be given again."),
    ] = (),
    thresholds: Annotated[
        Path | None, typer.Option(help="YAML file of such lines under fail_if (config/evaluation/thresholds.yaml).")
    ] = None,
) -> int | None:
    """Judge a model on recordings, in process, without ROS and the same on every run."""
    options = locals()
    options["thresholds_file"] = options.pop("thresholds")
    return call("jepa_ros.evaluation.bag.run:run_bag_evaluation", **options)


@command(bench, "offline")
def bench_offline(
    out: Out = Path("runs/offline"),
    goals: Annotated[int, typer.Option(min=1, help="Goals that each model tries.")] = 200,
    seed: Seed = 5,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with a core.")] = 2,
) -> int | None:
    """See whether the offline score of a bag tells which model reaches more goals; goes on where it was interrupted."""
    return call("jepa_ros.bench.offline_score:benchmark_offline_score", **locals())


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
    return call("jepa_ros.bench.planning:benchmark_planning", **locals())

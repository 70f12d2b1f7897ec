"""What models and planners are worth: evaluate, bench."""

from pathlib import Path
from typing import Annotated

import typer

from jepa_ros.commands.base import Model, Out, Seed, call, command, group

evaluate = group("evaluate", help="Measure a model.")
bench = group("bench", help="Measure our code beside that of others.")


@command(evaluate, "sim")
def evaluate_sim(
    model: Model = "openarm_reach",
    task: Annotated[str, typer.Option(help="Task to evaluate.")] = "reach",
    goals: Annotated[int, typer.Option(min=1, help="Goals to try.")] = 100,
    seed: Seed = 0,
    out: Out = Path("runs/evaluate"),
    solver: Annotated[str, typer.Option(help="Search: icem, cem, mppi, gradient or shooting.")] = "icem",
    policy: Annotated[str, typer.Option(help="What the fast policy is for: first, seed, alone or none.")] = "first",
    metric: Annotated[str, typer.Option(help="Distance of latents: l2, l1 or reachability.")] = "l2",
) -> int | None:
    """Reach goals in simulation, in process and without ROS, beside random actions and an oracle."""
    return call("jepa_ros.evaluation.sim:run", **locals())


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

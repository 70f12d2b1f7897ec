"""What holds when things go wrong: soak, security."""

from pathlib import Path
from typing import Annotated

import typer

from jepa_ros.commands.base import Model, Out, Robot, Seed, app, call, command, group

security = group("security", help="Who may publish and call what (SROS2).")


@command(app)
def soak(
    minutes: Annotated[float, typer.Option(help="How long, once all nodes are up.")] = 60.0,
    seed: Seed = 0,
    out: Out = Path("runs/soak"),
    model: Model = "openarm_reach",
    robot: Robot = "openarm",
    load: Annotated[int, typer.Option(help="Busy processes beside the graph.")] = 1,
    faults: Annotated[int | None, typer.Option(help="End after so many faults, where that is sooner.")] = None,
) -> int | None:
    """Run the simulated graph under load with one random fault after the other, and judge what the arm is sent."""
    return call("jepa_ros.soak.run:run_soak", **locals())


@command(security, "policy")
def security_policy(
    out: Annotated[Path, typer.Option(help="XML file to write.")],
    namespace: Annotated[str, typer.Option(help="Namespace that all nodes run in.")] = "",
    robot: Robot = "openarm",
    model: Model = "openarm_reach",
) -> int | None:
    """Write an SROS2 policy from what each node really opens, once it is active in simulation."""
    return call("jepa_ros.security.run:write_policy_file", **locals())

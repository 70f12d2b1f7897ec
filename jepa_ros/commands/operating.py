"""Commands that operate a running graph: goal, stop, status."""

from pathlib import Path
from typing import Annotated, Any

import typer

from jepa_ros.bringup.ros_names import check_ros_name
from jepa_ros.commands.base import RUN, Command, app, argument, call, check_image, command, group, number, option
from jepa_ros.errors import InputError

goal = group("goal", "Send a goal to the running graph and follow it until it has ended.", RUN)

MAX_DOMAIN = 232  # the ports of DDS end there

Domain = Annotated[
    int | None,
    number(
        "ROS domain of the graph; default: ROS_DOMAIN_ID, else that of the graph running on this machine.",
        0,
        MAX_DOMAIN,
    ),
]
GraphNamespace = Annotated[
    str, option("Namespace of the graph; default: that of the graph found.", check=check_ros_name)
]
Tolerance = Annotated[
    float,
    number(
        "Distance at which the goal counts as reached: m, rad or between latents, as the goal is; 0: default.", 0.0, 1e6
    ),
]
Timeout = Annotated[float, number("Give up after this time, s; 0: the planner's own.", 0.0, 3600.0)]
X, Y, Z = (
    Annotated[float, typer.Argument(help="Position in the robot's base frame, m.", metavar=axis)] for axis in "XYZ"
)


def numbers_command(name: str):
    """Register a command whose arguments may be negative numbers, which would be taken for options."""
    return goal.command(name, cls=Command, context_settings={"ignore_unknown_options": True})


def read_joints(texts: list[str]) -> dict[str, float]:
    """Return joint positions (rad) of texts NAME=RAD. Raises InputError."""
    found: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            position = float(value)
        except ValueError:
            position = float("nan")
        if not name or position != position or abs(position) == float("inf"):
            raise InputError(f"joint '{text}': expected NAME=RAD, such as elbow=0.5")
        if name in found:
            raise InputError(f"joint '{name}': given twice")
        found[name] = position
    return found


def send(kind: str, value: Any, **options: Any) -> int | None:
    return call("jepa_ros.graph_clients.operate:send_goal", kind=kind, value=value, **options)


@command(goal, "image")
def goal_image(
    images: Annotated[list[Path], argument("Image file (PNG, JPEG); one for each camera of the model.", check_image)],
    tolerance: Tolerance = 0.0,
    timeout: Timeout = 0.0,
    namespace: GraphNamespace = "",
    domain: Domain = None,
) -> int | None:
    """Move the arm until the cameras see what the goal image shows."""
    return send("image", images, tolerance=tolerance, timeout=timeout, namespace=namespace, domain=domain)


@numbers_command("pose")
def goal_pose(
    x: X,
    y: Y,
    z: Z,
    tolerance: Tolerance = 0.0,
    timeout: Timeout = 0.0,
    namespace: GraphNamespace = "",
    domain: Domain = None,
) -> int | None:
    """Move the tool to a position; its orientation is kept."""
    return send("pose", (x, y, z), tolerance=tolerance, timeout=timeout, namespace=namespace, domain=domain)


@command(goal, "joints")
def goal_joints(
    joints: Annotated[list[str], argument("Joint and its position in rad, such as elbow=0.5.", metavar="NAME=RAD")],
    tolerance: Tolerance = 0.0,
    timeout: Timeout = 0.0,
    namespace: GraphNamespace = "",
    domain: Domain = None,
) -> int | None:
    """Move joints to positions, as far as the robot's action space can."""
    return send("joints", read_joints(joints), tolerance=tolerance, timeout=timeout, namespace=namespace, domain=domain)


@numbers_command("object")
def goal_object(
    name: Annotated[str, typer.Argument(help="Object that the model has a probe for.")],
    x: X,
    y: Y,
    z: Z,
    tolerance: Tolerance = 0.0,
    timeout: Timeout = 0.0,
    namespace: GraphNamespace = "",
    domain: Domain = None,
) -> int | None:
    """Move an object to a position, for example by pushing it."""
    return send("object", (name, (x, y, z)), tolerance=tolerance, timeout=timeout, namespace=namespace, domain=domain)


@command(goal, "cancel")
def goal_cancel(namespace: GraphNamespace = "", domain: Domain = None) -> int | None:
    """Cancel the goal under way; the arm comes to rest."""
    return call("jepa_ros.graph_clients.operate:cancel_goals", **locals())


@command(app, panel=RUN)
def stop(
    release: Annotated[bool, typer.Option("--release", help="Let the arm move again after a stop.")] = False,
    namespace: GraphNamespace = "",
    domain: Domain = None,
) -> int | None:
    """Stop the arm smoothly and keep it stopped until --release. This is no emergency stop."""
    return call("jepa_ros.graph_clients.operate:stop_arm", **locals())


@command(app, panel=RUN)
def status(
    once: Annotated[
        bool, typer.Option("--once", help="Print once; exit code 1 if a node is not active or the gate is latched.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON each time.")] = False,
    namespace: GraphNamespace = "",
    domain: Domain = None,
) -> int | None:
    """Show nodes, gate, planner and camera rates of the running graph, until Ctrl-C."""
    options = {"once": once, "as_json": json, "namespace": namespace, "domain": domain}
    return call("jepa_ros.graph_clients.status:show_status", **options)

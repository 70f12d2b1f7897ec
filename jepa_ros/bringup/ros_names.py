"""ROS names: checking namespaces and topics before they reach a node."""

from jepa_ros.errors import InputError


def check_ros_name(what: str, name: str) -> None:
    """Check that `name` is a topic or namespace, relative, absolute or private (~/), or empty.

    Raises InputError, which names the input as `what`.
    """
    stripped = name.removeprefix("~/").removeprefix("/").removesuffix("/")
    for token in stripped.split("/") if stripped else ():
        if not (token.isascii() and token.isidentifier()):
            raise InputError(f"{what} '{name}': expected a ROS name of letters, digits, _ and /, found '{token}'")

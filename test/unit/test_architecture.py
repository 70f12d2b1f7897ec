"""The structure of the code: which package may import which, where ROS and torch are, one feature in one folder.

Reads the imports of every module with ast, those inside functions and under TYPE_CHECKING as well. ROWS is the order of
the packages: a package imports only packages in rows above its own. An entry of a list
that is no longer needed fails its test, so that no list goes stale.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Lowest first. Packages in one row do not import each other. Root modules (errors.py, cli.py) count as packages.
ROWS = """
errors
text_files resources images frame_checks allocator distributed
reporting
robot
world_model
planning sim
bags
datasets
evaluation
checkpoints training bench api
nodes
bringup
graph_clients
demo soak collecting doctor security
commands
cli
"""
ORDER = {package: row for row, line in enumerate(ROWS.split("\n")) for package in line.split()}

# Sub-folders of implementations: base modules of the parent define what they implement, and one module of the parent
# looks them up by name. All other folders depend on each other in one direction only.
IMPLEMENTATIONS = {"planning/solvers"}

# Modules and folders that import rclpy or packages of ROS messages. The rest runs without ROS.
ROS = {
    "nodes",
    "graph_clients",
    "collecting/graph_client",
    "collecting/session",
    "demo/listener",
    "doctor/graph_listener",
    "doctor/inquiry",
    "doctor/run",
    "security/run",
    "soak/faults",
    "soak/image_relay",
    "soak/observer",
    "soak/session",
}
# Modules that launch imports. It is not installed where ROS comes from wheels.
LAUNCH = {"bringup/launch_description"}

# What starts fast or runs beside a controller, and what it must not load.
LIGHT = ["cli", "nodes/camera", "nodes/arm_gate/node", "nodes/player", "nodes/recorder", "bringup/nodes"]
HEAVY = ("torch", "mujoco")

# Words of features: a file named after one lies in the feature's folder.
FEATURES = {"soak": "soak", "collect": "collecting", "demo": "demo", "doctor": "doctor"}


class Import(NamedTuple):
    source: str  # "planning/solver"; a package's __init__ is the package
    target: str  # in jepa_ros "planning/solver", else the top-level name of another distribution
    lazy: bool  # inside a function, or for the type checker only
    line: int


def short(name: str) -> str:
    """jepa_ros.planning.solver -> planning/solver; jepa_ros itself is "jepa_ros"."""
    return name.removeprefix("jepa_ros.").replace(".", "/")


@cache
def files() -> dict[str, Path]:
    """Dotted name -> file, of every module of jepa_ros."""
    found = {}
    for path in sorted((ROOT / "jepa_ros").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports() -> list[Import]:
    return [found for name, path in files().items() for found in _imports_of(name, path)]


def _imports_of(name: str, path: Path) -> list[Import]:
    found = []
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]

    def add(target: str, lazy: bool, line: int) -> None:
        own = target == "jepa_ros" or target.startswith("jepa_ros.")
        found.append(Import(short(name), short(target) if own else target.partition(".")[0], lazy, line))

    def visit(node: ast.AST, lazy: bool) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                add(alias.name, lazy, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                add(whole if whole in files() else base, lazy, node.lineno)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            if node.args and isinstance(node.args[0], ast.Constant):
                add(node.args[0].value, lazy, node.lineno)
        for child in ast.iter_child_nodes(node):
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            checked = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            visit(child, lazy or function or checked)

    visit(ast.parse(path.read_text()), False)
    return found


def inside() -> list[Import]:
    """Return the imports of modules of jepa_ros by others, but not those of jepa_ros/__init__.py: it offers the public
    API, and loads nothing before it is asked for (see test_importing_the_package_loads_no_submodule)."""
    modules = {short(name) for name in files()} - {"jepa_ros"}
    return [i for i in imports() if i.source in modules and i.target in modules and i.source != i.target]


def package_of(module: str) -> str:
    return module.partition("/")[0]


def folder_of(module: str) -> str:
    """The folder that a module lies in; a package's __init__ lies in the package. "" for jepa_ros/ itself."""
    path = files()["jepa_ros." + module.replace("/", ".")]
    return path.parent.relative_to(ROOT / "jepa_ros").as_posix().strip(".")


def within(module: str, places: set[str]) -> str | None:
    """The entry of `places` that is the module or a folder it is in."""
    parts = module.split("/")
    return next((p for p in ("/".join(parts[:n]) for n in range(len(parts), 0, -1)) if p in places), None)


def test_every_package_is_in_the_table():
    present = {package_of(short(name)) for name in files()} - {"jepa_ros"}
    assert present == set(ORDER), "add new packages to ROWS, remove old ones"


def test_a_package_imports_only_packages_in_rows_above_it():
    wrong = {
        f"{i.source} -> {i.target}"
        for i in inside()
        if package_of(i.source) != package_of(i.target) and ORDER[package_of(i.target)] >= ORDER[package_of(i.source)]
    }
    assert not wrong


def test_folders_do_not_import_each_other():
    arrows = defaultdict(list)
    for i in inside():
        one, other = folder_of(i.source), folder_of(i.target)
        if one and other and one != other:  # jepa_ros/ itself: its modules are rows of the table
            arrows[one, other].append(f"{i.source}:{i.line} -> {i.target}")
    both = {pair: arrows[pair] + arrows[pair[::-1]] for pair in arrows if pair[::-1] in arrows and pair[0] < pair[1]}
    needed = {other for one, other in both if other.startswith(f"{one}/")} & IMPLEMENTATIONS
    assert not {pair: lines for pair, lines in both.items() if pair[1] not in needed}
    assert needed == IMPLEMENTATIONS, "entries of IMPLEMENTATIONS that no longer are"


def test_there_are_no_circular_imports():
    targets = defaultdict(set)
    for i in inside():
        targets[i.source].add(i.target)
    assert not circles(targets)


def circles(targets: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one node (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(targets.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            start = stack.index(node)
            if len(stack) - start > 1:
                found.append(stack[start:])
            del stack[start:]

    for node in sorted(targets):
        if node not in index:
            visit(node)
    return found


def is_ros(name: str) -> bool:
    return name in {"rclpy", "launch_ros", "tf2_ros"} or name.endswith(("_msgs", "_interfaces", "_srvs"))


@pytest.mark.parametrize(
    ("allowed", "chosen"),
    [(ROS, lambda i: is_ros(i.target) and i.target != "launch_ros"), (LAUNCH, lambda i: i.target.startswith("launch"))],
    ids=["rclpy and messages", "launch"],
)
def test_ros_is_imported_only_by_the_modules_listed_here(allowed, chosen):
    users = {i.source for i in imports() if chosen(i)}
    assert not {u for u in users if not within(u, allowed)}, "modules that import ROS and are not listed"
    assert not allowed - {within(u, allowed) for u in users}, "entries that no longer import ROS"


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_do_not_import_torch_or_mujoco(module):
    targets = defaultdict(set)
    for i in imports():
        if not i.lazy:
            targets[i.source].add(i.target)
            parts = i.target.split("/")  # importing a module runs the __init__ of every package around it
            targets[i.source].update("/".join(parts[:n]) for n in range(1, len(parts)))
    parts = module.split("/")
    reached, left = {}, [("/".join(parts[:n]), None) for n in range(1, len(parts) + 1)]
    while left:
        name, by = left.pop()
        if name not in reached:
            reached[name] = by
            left += [(target, name) for target in targets.get(name, ())]
    for heavy in HEAVY:
        way, name = [], heavy
        while name in reached:
            way.append(name)
            name = reached[name]
        assert not way, " <- ".join(way)


def test_importing_the_package_loads_no_submodule():
    assert not {i.target for i in imports() if i.source == "jepa_ros" and not i.lazy and within(i.target, set(ORDER))}


@pytest.mark.parametrize("package", sorted(n for n, p in files().items() if p.name == "__init__.py"))
def test_every_package_has_a_docstring(package):
    text = ast.get_docstring(ast.parse(files()[package].read_text())) or ""
    assert len(re.findall(r"[.!?](\s|$)", text)) >= 2, f"{package}: a docstring of two or three sentences"


@pytest.mark.parametrize("word", FEATURES)
def test_modules_of_a_feature_are_in_its_own_folder(word):
    elsewhere = [
        module
        for module in map(short, files())
        if word in module.rpartition("/")[2] and package_of(module) not in {FEATURES[word], "commands"}
    ]
    assert not elsewhere

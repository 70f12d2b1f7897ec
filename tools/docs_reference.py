"""Reference pages of the documentation site, written from the code.

`reference_pages()` returns every generated page as {path below docs/: Markdown}. Nothing is kept in the tree: the site
build calls it (`on_files`, a hook of mkdocs), so a page cannot fall behind the code.

Sources: parameters from the nodes' schemas, topics, services and actions from the calls that create them, messages from
msg/, commands from the command line's own parser, file formats from the pydantic models that read the files.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import xml.etree.ElementTree
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
NODES = {
    "camera": "jepa_ros.nodes.camera",
    "world_model": "jepa_ros.nodes.world_model",
    "planner": "jepa_ros.nodes.planner.node",
    "arm_gate": "jepa_ros.nodes.arm_gate.node",
    "simulator": "jepa_ros.nodes.simulator",
    "recorder": "jepa_ros.nodes.recorder",
    "player": "jepa_ros.nodes.player",
}
FILE_FORMATS = (
    ("Robot file", "config/robots/NAME.yaml", "jepa_ros.robot.config", "RobotConfig"),
    ("Checkpoint", "config.json beside model.safetensors", "jepa_ros.world_model.config", "ModelConfig"),
    ("Training recipe", "config/recipes/NAME.yaml", "jepa_ros.training.recipe", "Recipe"),
    ("Bag mapping", "config/mappings/NAME.yaml", "jepa_ros.datasets.mapping", "BagMapping"),
    ("Dataset index", "dataset.json", "jepa_ros.datasets.store", "Index"),
)


def reference_pages() -> dict[str, str]:
    """Return {path below docs/: Markdown} of all generated pages."""
    return {
        "reference/nodes.md": nodes_page(),
        "reference/messages.md": messages_page(),
        "reference/commands.md": commands_page(),
        "reference/launch.md": launch_page(),
        "reference/file_formats.md": file_formats_page(),
    }


# ---- Markdown --------------------------------------------------------------------------------------------------------


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table; cells are escaped, line breaks become spaces."""

    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(" ".join(str(c).split()).replace("|", "\\|") for c in cells) + " |"

    head = list(head)
    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)]) + "\n"


def code(value: object) -> str:
    """Return the value in code style; an empty text for None or ''."""
    return f"`{value}`" if value not in (None, "") else ""


def first_sentence(docstring: str | None) -> str:
    """Return the first paragraph of a docstring as one line."""
    return " ".join((docstring or "").strip().split("\n\n")[0].split())


# ---- nodes -----------------------------------------------------------------------------------------------------------


class Endpoint(NamedTuple):
    """A topic, service or action that a node opens."""

    kind: str
    name: str
    type: str


_CALLS = {
    "create_subscription": "subscribes",
    "create_publisher": "publishes",
    "create_lifecycle_publisher": "publishes",
    "create_service": "service",
    "ActionServer": "action",
    "ActionClient": "action client",
}


def node_endpoints(module: str) -> list[Endpoint]:
    """Return what the node's own files open: the calls that create topics, services and actions, in their order."""
    path = ROOT / (module.replace(".", "/") + ".py")
    files = sorted(path.parent.glob("*.py")) if path.stem == "node" else [path]
    found: dict[Endpoint, None] = {}
    for file in files:
        tree = ast.parse(file.read_text())
        constants = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        for call in sorted(calls, key=lambda node: node.lineno):
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            arguments = call.args[1:] if name.startswith("Action") else call.args
            if name in _CALLS and len(arguments) >= 2:
                found.setdefault(Endpoint(_CALLS[name], _topic(arguments[1], constants), _type(arguments[0])))
    return list(found)


def observed_topics(node: str) -> list[Endpoint]:
    """Return the topics that the node was seen to open in the running simulated graph (config/security)."""
    policy = xml.etree.ElementTree.parse(ROOT / "config" / "security" / "sim.policy.xml")
    found = []
    for access, kind in (("subscribe", "subscribes"), ("publish", "publishes")):
        for topics in policy.iterfind(f".//enclave[@path='/{node}']//topics[@{access}='ALLOW']"):
            names = [topic.text.lstrip("/") for topic in topics]
            found += [Endpoint(kind, name, "") for name in names if name not in _EVERY_NODE and "~" not in name]
    return found


_EVERY_NODE = {"clock", "diagnostics", "parameter_events", "rosout"}


def _topic(node: ast.expr, constants: dict[str, object]) -> str:
    """Return a name as the call has it: a literal, the only literal of an expression, or the expression in <>."""
    literals = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    if isinstance(node, ast.JoinedStr):
        return "".join(v.value if isinstance(v, ast.Constant) else f"<{ast.unparse(v.value)}>" for v in node.values)
    if len(literals) == 1:
        return literals[0]
    if isinstance(node, ast.Name) and node.id in constants:
        return str(constants[node.id])
    return f"<{ast.unparse(node)}>"


def _type(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) and node.id[:1].isupper() else ""


def nodes_page() -> str:
    """Return the page of all nodes: topics, services, actions, parameters."""
    parts = [
        "# Nodes",
        "Every node is a lifecycle node that configures and activates itself (`autostart`) and reports on "
        "`/diagnostics`. Names are relative: a namespace or a remapping moves them. A name in angle brackets depends "
        "on the robot file or on a parameter.",
    ]
    everywhere = [endpoint for module in NODES.values() for endpoint in node_endpoints(module)]
    types = {e.name: e.type for e in everywhere if e.type}
    types |= {"image/compressed": "CompressedImage"}
    for name, module in NODES.items():
        loaded = importlib.import_module(module)
        parts += [f"## {name}", first_sentence(loaded.__doc__)]
        endpoints = node_endpoints(module)
        known = {(e.kind, e.name.lstrip("/")) for e in endpoints}
        observed = [e for e in observed_topics(name) if (e.kind, e.name) not in known]
        if observed:  # they are what the expressions stand for
            endpoints = [e for e in endpoints if not e.name.startswith("<")] + observed
        endpoints.sort(key=lambda e: list(_CALLS.values()).index(e.kind))
        rows = [(e.kind, code(e.name), code(e.type or types.get(e.name, ""))) for e in endpoints]
        parts.append(table(("", "name", "type"), rows))
        parts += ["### Parameters of " + name, table(_PARAMETER_HEAD, map(_parameter_row, loaded.PARAMETERS))]
    return "\n\n".join(parts) + "\n"


_PARAMETER_HEAD = ("parameter", "default", "unit", "range", "meaning")


def _parameter_row(p) -> tuple[str, ...]:
    allowed = ", ".join(p.choices) if p.choices else (f"{p.range[0]:g} to {p.range[1]:g}" if p.range else "")
    fixed = " Read at start only." if p.read_only else (" Fixed while configured." if p.at_configure else "")
    default = repr(p.default).replace("'", '"') if not isinstance(p.default, bool) else str(p.default).lower()
    return code(p.name), code(default), p.unit, allowed, p.description + fixed


# ---- messages --------------------------------------------------------------------------------------------------------


def messages_page() -> str:
    """Return the page of package jepa_msgs: every field with its unit, every constant with its meaning."""
    parts = ["# Messages", "Package `jepa_msgs`, built from `msg/` of the repository."]
    for suffix, title in (("msg", "Topics"), ("srv", "Services"), ("action", "Actions")):
        parts.append(f"## {title}")
        for path in sorted((ROOT / "msg" / suffix).glob(f"*.{suffix}")):
            parts.append(message_section(path))
    return "\n\n".join(parts) + "\n"


def message_section(path: Path) -> str:
    """Return one interface file as a section: its comment, and a table for each of its parts."""
    names = {"msg": ("Fields",), "srv": ("Request", "Response"), "action": ("Goal", "Result", "Feedback")}
    sections = re.split(r"^---$", path.read_text(), flags=re.M)
    head = [line.lstrip("# ").rstrip() for line in sections[0].split("\n\n")[0].splitlines() if line.startswith("#")]
    parts = [f"### {path.stem}", " ".join(head)]
    for title, text in zip(names[path.suffix[1:]], sections, strict=True):
        constants, fields = [], []
        for line in text.splitlines():
            declaration, _, comment = line.partition("#")
            words = declaration.split(None, 1)
            if len(words) != 2:
                continue
            kind, name = words[0], words[1].strip()
            row = (code(name), code(kind), comment.strip())
            (constants if "=" in name else fields).append(row)
        if constants:
            parts.append(table(("constant", "type", "meaning"), constants))
        if fields:
            parts += [f"**{title}**", table(("field", "type", "unit and meaning"), fields)]
    return "\n\n".join(parts)


# ---- commands --------------------------------------------------------------------------------------------------------


def commands_page() -> str:
    """Return the page of the command line: usage, arguments and options of every command, as --help has them."""
    import typer.main

    from jepa_ros.cli import app

    parts = [
        "# Commands",
        "`jepa_ros COMMAND --help` prints the same. Exit codes: 0 done, 1 a threshold was not met or a goal not "
        "reached, 2 invalid input (one line on stderr), 130 interrupted by Ctrl-C.",
    ]
    for path, command in _walk_commands(typer.main.get_command(app), "jepa_ros"):
        parts += [f"## {path}", (command.help or "").strip(), *_command_tables(command, path)]
    return "\n\n".join(parts) + "\n"


def _walk_commands(command, path: str) -> Iterator[tuple[str, object]]:
    children = getattr(command, "commands", {})
    if not children or getattr(command, "invoke_without_command", False):
        yield path, command
    for name, child in sorted(children.items()):
        if not child.hidden:
            yield from _walk_commands(child, f"{path} {name}")


def _command_tables(command, path: str) -> Iterator[str]:
    shown = [p for p in command.params if not getattr(p, "hidden", False) and p.name not in ("help", "context")]
    arguments = [p for p in shown if p.param_type_name == "argument"]
    usage = " ".join([path, *(p.name.upper() for p in arguments)])
    yield f"    {usage} [OPTIONS]"
    rows = []
    for p in shown:
        names = ", ".join(code(n) for n in [*p.opts, *p.secondary_opts]) if p not in arguments else code(p.name.upper())
        default = (
            "required"
            if p.required
            else ("" if p.default in (None, (), [], "") or callable(p.default) else code(p.default))
        )
        if getattr(p, "is_flag", False):
            default = ""
        rows.append((names, default, getattr(p, "help", "") or ""))
    if rows:
        yield table(("option", "default", "meaning"), rows)


# ---- launch files ----------------------------------------------------------------------------------------------------


def launch_page() -> str:
    """Return the page of the launch files and their arguments."""
    from jepa_ros.bringup.nodes import ARGUMENTS

    parts = ["# Launch files", "`ros2 launch jepa_ros FILE --show-args` prints the same."]
    for kind, arguments in ARGUMENTS.items():
        if not (ROOT / "launch" / f"{kind}.launch.py").is_file():
            continue
        rows = []
        for item in dataclasses.fields(arguments):
            default = item.default if item.default is not dataclasses.MISSING else "required"
            rows.append((code(item.name), code(default), item.metadata.get("text", "")))
        parts += [
            f"## {kind}.launch.py",
            first_sentence(arguments.__doc__),
            table(("argument", "default", "meaning"), rows),
        ]
    return "\n\n".join(parts) + "\n"


# ---- file formats ----------------------------------------------------------------------------------------------------


def file_formats_page() -> str:
    """Return the page of the files that are read: every key with type, range, default and meaning."""
    parts = ["# File formats", "Unknown keys are refused, so that a misspelt one is noticed."]
    for title, where, module, name in FILE_FORMATS:
        model = getattr(importlib.import_module(module), name)
        schema = model.model_json_schema()
        parts += [f"## {title}", f"`{where}`. {first_sentence(model.__doc__)}", _schema_table(schema)]
        for part, definition in sorted(schema.get("$defs", {}).items()):
            if "properties" in definition:
                parts += [
                    f"### {part} ({title})",
                    first_sentence(definition.get("description")),
                    _schema_table(definition),
                ]
    return "\n\n".join(parts) + "\n"


def _schema_table(schema: dict) -> str:
    required = set(schema.get("required", ()))
    rows = []
    for key, entry in schema.get("properties", {}).items():
        default = "required" if key in required else code(_json(entry.get("default")))
        rows.append((code(key), _schema_type(entry), default, entry.get("description", "")))
    return table(("key", "type", "default", "meaning"), rows)


def _json(value: object) -> str:
    import json

    return json.dumps(value)


def _schema_type(entry: dict) -> str:
    """Return a JSON schema's type in words, with its range or choices."""
    if "$ref" in entry:
        return entry["$ref"].rsplit("/", 1)[1]
    if options := entry.get("anyOf") or entry.get("oneOf"):
        return " or ".join(dict.fromkeys(_schema_type(option) for option in options))
    if "const" in entry:
        return code(entry["const"])
    if "enum" in entry:
        return ", ".join(code(value) for value in entry["enum"])
    kind = entry.get("type", "any")
    if kind == "array":
        items = entry.get("items") or {}
        if "prefixItems" in entry:
            return f"list of {len(entry['prefixItems'])} {_schema_type(entry['prefixItems'][0])}"
        return f"list of {_schema_type(items)}" if items else "list"
    if kind == "object":
        values = entry.get("additionalProperties")
        return f"mapping to {_schema_type(values)}" if isinstance(values, dict) else "mapping"
    bounds = [
        f"{sign} {entry[key]:g}"
        for key, sign in (("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "<"), ("maximum", "≤"))
        if key in entry
    ]
    return " ".join([kind, *bounds])


# ---- site build ------------------------------------------------------------------------------------------------------


def on_files(files, config):
    """Add the generated pages to the site (a hook of mkdocs)."""
    from mkdocs.structure.files import File

    for path, content in reference_pages().items():
        files.append(File.generated(config, path, content=content))
    return files

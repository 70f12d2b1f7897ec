"""Edit YAML text: set one key of a mapping and keep everything else, with comments, order and spaces."""

from __future__ import annotations

import yaml

from jepa_ros.errors import InputError


def set_key(text: str, mapping: str, key: str, value: list[float], what: str) -> str:
    """Return the text with `key: value` added to, or changed in, the top-level mapping of name `mapping`.

    what: names the text in errors. Raises InputError where there is no such mapping, or where the edit would change
    anything else.
    """
    shown = f"[{', '.join(f'{number:.6g}' for number in value)}]"
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        before = yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise InputError(f"{what}: expected YAML, found {problem}") from None
    node = _child(root, mapping)
    if not isinstance(node, yaml.MappingNode) or not node.value:
        raise InputError(f"{what}: expected the key {mapping} with fields of its own, found none")
    old = _child(node, key)
    if old is not None:
        changed = text[: old.start_mark.index] + shown + text[_end(text, old) :]
    elif node.flow_style:
        end = node.end_mark.index - 1  # of the closing brace
        head = text[:end].rstrip()
        changed = f"{head}{'' if head.endswith(',') else ','} {key}: {shown}{text[end:]}"
    else:
        first, last = node.value[0][0].start_mark, node.value[-1][1]
        line = f"{' ' * first.column}{key}: {shown}"
        at = text.find("\n", _end(text, last))
        changed = f"{text.rstrip(chr(10))}\n{line}\n" if at < 0 else f"{text[:at]}\n{line}{text[at:]}"
    wanted = {**before, mapping: {**before[mapping], key: yaml.safe_load(shown)}}
    try:
        after = yaml.safe_load(changed)
    except yaml.YAMLError:
        after = None
    if after != wanted:
        raise InputError(f"{what}: {mapping}: {key} cannot be added without changing other keys; edit the file by hand")
    return changed


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for name, value in pairs if name.value == key), None)


def _end(text: str, node: yaml.Node) -> int:
    """Return the index of a value's end; yaml's end mark of a block collection is at the next value."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style:
        return _end(text, node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1])
    return node.end_mark.index

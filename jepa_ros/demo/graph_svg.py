"""The graph of nodes and topics as an SVG drawing that takes the colours of the page around it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from jepa_ros.reporting.plots import COLOURS

_ROW, _TOP, _BOX = 34, 40, 26  # px: distance of topics, space above the first, height of a box
_NODE_WIDTH, _TOPIC_WIDTH, _GAP = 132, 300, 110


def graph_svg(topics: Mapping[str, Mapping], order: Sequence[str] = ()) -> str:
    """Publishers on the left, topics in the middle, subscribers on the right.

    topics: ``{topic: {"type": "sensor_msgs/msg/Image", "from": [node, ...], "to": [node, ...]}}``. order: nodes from
    top to bottom; those not named follow.
    """
    nodes = list(dict.fromkeys([*order, *(n for t in topics.values() for n in (*t["from"], *t["to"]))]))
    rank = {name: i for i, name in enumerate(nodes)}
    colour = {name: COLOURS[i % len(COLOURS)] for name, i in rank.items()}

    def place(item):
        topic = item[1]
        ends = [min((rank[n] for n in topic[side]), default=len(nodes)) for side in ("from", "to")]
        return (*ends, item[0])

    rows = sorted(topics.items(), key=place)
    y = {name: _TOP + _ROW * i + _BOX / 2 for i, (name, _) in enumerate(rows)}
    left = _spread({n: [y[t] for t, d in rows if n in d["from"]] for n in nodes})
    right = _spread({n: [y[t] for t, d in rows if n in d["to"]] for n in nodes})
    middle, far = _NODE_WIDTH + _GAP, _NODE_WIDTH + 2 * _GAP + _TOPIC_WIDTH
    height = max([*y.values(), *left.values(), *right.values()], default=_TOP) + _BOX
    parts = []
    for topic, data in rows:
        for node in data["from"]:
            parts.append(_link(_NODE_WIDTH, left[node], middle, y[topic], colour[node]))
        for node in data["to"]:
            parts.append(_link(middle + _TOPIC_WIDTH, y[topic], far, right[node], colour[(data["from"] or [node])[0]]))
        parts.append(_topic(middle, y[topic], topic, data["type"]))
    for x, places in ((0, left), (far, right)):
        parts += [_node(x, at, node, colour[node]) for node, at in places.items()]
    for x, width, text in (
        (0, _NODE_WIDTH, "publishes"),
        (middle, _TOPIC_WIDTH, "topic"),
        (far, _NODE_WIDTH, "listens"),
    ):
        parts.append(f'<text x="{x + width / 2:g}" y="16" text-anchor="middle" fill="var(--soft)">{text}</text>')
    return (
        f'<svg viewBox="0 0 {far + _NODE_WIDTH} {height:g}" role="img" aria-label="nodes and topics" '
        f'font-size="13" xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _spread(wanted: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Each node that has topics at their middle, moved down where it would cover the one above."""
    centres = sorted((sum(ys) / len(ys), name) for name, ys in wanted.items() if ys)
    placed, last = {}, float("-inf")
    for centre, name in centres:
        last = max(centre, last + _BOX + 10)
        placed[name] = last
    return placed


def _link(x0: float, y0: float, x1: float, y1: float, colour: str) -> str:
    bend = (x1 - x0) / 2
    path = f"M{x0:g} {y0:g} C{x0 + bend:g} {y0:g} {x1 - bend:g} {y1:g} {x1:g} {y1:g}"
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.4" opacity="0.7"/>'


def _node(x: float, y: float, name: str, colour: str) -> str:
    return (
        f'<rect x="{x + 0.5:g}" y="{y - _BOX / 2:g}" width="{_NODE_WIDTH - 1}" height="{_BOX}" rx="7" fill="{colour}"/>'
        f'<text x="{x + _NODE_WIDTH / 2:g}" y="{y + 4.5:g}" text-anchor="middle" fill="#fff" font-weight="600">'
        f"{html.escape(name)}</text>"
    )


def _topic(x: float, y: float, name: str, kind: str) -> str:
    short = kind.rsplit("/", 1)[-1]
    return (
        f'<rect x="{x}" y="{y - _BOX / 2:g}" width="{_TOPIC_WIDTH}" height="{_BOX}" rx="{_BOX / 2:g}" '
        'fill="var(--back)" stroke="var(--faint)"/>'
        f'<text x="{x + _TOPIC_WIDTH / 2:g}" y="{y + 4.5:g}" text-anchor="middle" fill="var(--ink)">{_shortened(name)}'
        f'<tspan fill="var(--soft)" dx="7" font-size="11">{html.escape(short)}</tspan></text>'
    )


def _shortened(name: str, longest: int = 26) -> str:
    name = name if len(name) <= longest else f"{name[: longest // 2 - 1]}…{name[-longest // 2 :]}"
    return html.escape(name)

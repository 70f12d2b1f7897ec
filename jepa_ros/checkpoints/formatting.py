"""Facts and metrics of a model as rows of text, for the terminal and for reports."""

from __future__ import annotations

from typing import Any

Row = tuple[str, str]


def describe_facts(facts: dict[str, Any]) -> list[Row]:
    """Return (name, value) of facts.read_facts, without files, robots and card."""
    image, surprise, distance = facts["preprocessing"], facts["surprise"], facts["distance"]
    frozen, levels = facts["frozen_encoder"], "not calibrated"
    speed = ""
    if facts["action"]["name"] in ("planar_velocity", "tool_velocity"):
        yaw = facts.get("max_yaw_speed")
        speed = f"; 1 is {facts['max_speed']:g} m/s" + (f", of yaw {yaw:g} rad/s" if yaw else "")
    if surprise["levels"]:
        pairs = zip(surprise["levels"], surprise["errors"], strict=True)
        levels = ", ".join(f"{100 * p:g} % {e:.4g}" for p, e in pairs) + f"; threshold {surprise['threshold']:.4g}"
    rows = [
        ("family", facts["family"]),
        ("model id", facts["model_id"]),
        ("schema version", str(facts["schema_version"])),
        ("encoder", _format_part(facts["encoder"])),
        ("predictor", _format_part(facts["predictor"])),
        ("policy", _format_part(facts["policy"]) if facts["policy"] else "none"),
        ("parameters", ", ".join(f"{part} {_format_count(count)}" for part, count in facts["parameters"].items())),
        ("latent", f"{format_shape(facts['latent_shape'])} numbers"),
        (
            "frames",
            f"{image['size']} x {image['size']} px of {_join(facts['cameras'])}, mean {_join(image['mean'])}, "
            f"std {_join(image['std'])}",
        ),
        ("history", f"{facts['history']} frames, a step apart"),
        ("model step", f"{facts['action']['block']} ticks at {facts['control_rate']:g} Hz: {facts['step']:g} s"),
        ("actions", format_actions(facts) + speed),
        ("proprioception", ", ".join(facts["proprioception"]) or "none"),
        ("goal reached under", f"{distance['tolerance']:.4g} (latent distance), flat from {distance['far']:.4g}"),
        ("surprise", levels),
    ]
    if frozen is not None:
        match = "as configured" if frozen["sha256"] == frozen["expected_sha256"] else "NOT the one of the configuration"
        count = _format_count(frozen["parameters"])
        text = f"{frozen['kind']}, {count} parameters, SHA-256 {match}, in {frozen['directory']}"
        rows.insert(7, ("frozen encoder", text))
    return rows


def describe_robots(facts: dict[str, Any]) -> list[Row]:
    """Return (robot, whether the model fits it) of config/robots and of the robots that it was trained for."""
    trained, fit = facts["robots"]["trained_for"], facts["robots"]["fit"]
    rows = []
    for name in sorted({*trained, *fit}):
        verdict = "no such robot in config/robots" if name not in fit else fit[name] or "fits"
        rows.append((name, f"trained for; {verdict}" if name in trained else verdict))
    return rows


def describe_latent_metrics(metrics: dict[str, Any]) -> list[Row]:
    """Return (name, value) of latent_space.measure_latent_space, for tiles and the terminal."""
    probe, near = metrics["probe"], metrics["neighbours"]
    return [
        ("probe R² of the tool (test)", format_optional(probe["r2"], "{:.4f}")),
        ("probe error (median)", format_millimetres(probe["error_p50"])),
        ("effective rank", f"{format_optional(metrics['effective_rank'], '{:.1f}')} of {metrics['dimensions']}"),
        ("dead dimensions", format_optional(metrics["dead_dimensions"], "{:.0%}").replace("%", " %")),
        ("tool distance to the frame nearest by the latent", format_millimetres(near["tool_distance"])),
        ("tool distance to the really nearest frame", format_millimetres(near["least_tool_distance"])),
        ("tool distance to a random frame", format_millimetres(near["random_tool_distance"])),
        (
            "rank correlation of latent and tool distance",
            format_optional(metrics["distance"]["rank_correlation"], "{:.2f}"),
        ),
    ]


def format_shape(values: list[int]) -> str:
    """256 x 1408."""
    return " x ".join(map(str, values))


def format_actions(entry: dict[str, Any]) -> str:
    """planar_velocity, 4 x 2."""
    action = entry["action"]
    return f"{action['name']}, {action['block']} x {action['dimension']}"


def format_optional(value: float | None, form: str) -> str:
    """The value in that format, or a dash for None."""
    return "–" if value is None else form.format(value)


def format_millimetres(value: float | None) -> str:
    """A value in m as mm."""
    return format_optional(None if value is None else 1000 * value, "{:.3g} mm")


def _format_part(part: dict[str, Any]) -> str:
    """conv, channels 48, 96, 128."""
    rest = (f"{key} {_join(v) if isinstance(v, list) else v}" for key, v in part.items() if key != "type")
    return ", ".join([*([part["type"]] if "type" in part else []), *rest])


def _format_count(count: int) -> str:
    """18.03 M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.4g} {letter}"
    return str(count)


def _join(values: list) -> str:
    """0.5, 0.5, 0.5."""
    return ", ".join(f"{v:g}" if isinstance(v, (int, float)) else str(v) for v in values)

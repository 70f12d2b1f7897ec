"""What is known of a model, in words: for the terminal and for reports."""

from __future__ import annotations

from typing import Any

ORDERS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def list_row(entry: dict[str, Any]) -> tuple[str, ...]:
    """Cells of catalogue.entry under LIST_COLUMNS."""
    where = entry["origin"] if entry["origin"] == "shipped" else entry["directory"]
    if "family" not in entry:
        return (entry["name"], "–", "–", "–", "–", "–", "–", where)
    return (
        entry["name"],
        entry["family"],
        shape(entry["latent_shape"]),
        actions(entry),
        f"{entry['step']:g} s",
        ", ".join(entry["robots"]) or "none yet",
        entry["model_id"],
        where,
    )


LIST_COLUMNS = ("name", "family", "latent", "actions", "step", "robots", "model id", "where")


def fact_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, value) of facts.read_facts, in the order in which a person asks; the card and the files not among them."""
    image, surprise = facts["preprocessing"], facts["surprise"]
    step = f"{facts['action']['block']} ticks at {facts['control_rate']:g} Hz: {facts['step']:g} s"
    colours = f"mean {numbers(image['mean'])}, std {numbers(image['std'])}"
    speed = f"; 1 is {facts['max_speed']:g} m/s" if facts["action"]["name"] == "planar_velocity" else ""
    rows = [
        ("family", facts["family"]),
        ("model id", facts["model_id"]),
        ("schema version", str(facts["schema_version"])),
        ("encoder", sizes(facts["encoder"])),
        ("predictor", sizes(facts["predictor"])),
        ("policy", sizes(facts["policy"]) if facts["policy"] else "none"),
        ("parameters", ", ".join(f"{part} {short(count)}" for part, count in facts["parameters"].items())),
        ("latent", f"{shape(facts['latent_shape'])} numbers"),
        ("frames", f"{image['size']} x {image['size']} px of {numbers(facts['cameras'])}, {colours}"),
        ("history", f"{facts['history']} frames, a step apart"),
        ("model step", step),
        ("actions", actions(facts) + speed),
        ("proprioception", ", ".join(facts["proprioception"]) or "none"),
        (
            "goal reached under",
            f"{facts['distance']['tolerance']:.4g} (latent distance), flat from {facts['distance']['far']:.4g}",
        ),
        ("surprise", quantiles(surprise)),
    ]
    if (frozen := facts["frozen_encoder"]) is not None:
        same = "as configured" if frozen["sha256"] == frozen["expected_sha256"] else "NOT the one of the configuration"
        text = f"{frozen['kind']}, {short(frozen['parameters'])} parameters, SHA-256 {same}, in {frozen['directory']}"
        rows.insert(7, ("frozen encoder", text))
    return rows


def robot_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """(robot, whether the model fits it) of config/robots and of those that it was trained for."""
    trained, fit = facts["robots"]["trained_for"], facts["robots"]["fit"]
    rows = []
    for name in sorted({*trained, *fit}):
        verdict = "no such robot in config/robots" if name not in fit else fit[name] or "fits"
        rows.append((name, f"trained for; {verdict}" if name in trained else verdict))
    return rows


def file_rows(facts: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(name, bytes, SHA-256) of the files."""
    return [(name, f"{file['bytes']:,}", file["sha256"]) for name, file in facts["files"].items()]


def latent_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, value) of latent_space.measure, for tiles and the terminal."""
    probe, near = found["probe"], found["neighbours"]
    return [
        ("probe R² of the tool (test)", told(probe["r2"], "{:.4f}")),
        ("probe error (median)", millimetres(probe["error_p50"])),
        ("effective rank", f"{told(found['effective_rank'], '{:.1f}')} of {found['dimensions']}"),
        ("dead dimensions", told(found["dead_dimensions"], "{:.0%}").replace("%", " %")),
        ("tool distance to the frame nearest by the latent", millimetres(near["tool_distance"])),
        ("tool distance to the really nearest frame", millimetres(near["least_tool_distance"])),
        ("tool distance to a random frame", millimetres(near["random_tool_distance"])),
        ("rank correlation of latent and tool distance", told(found["distance"]["rank_correlation"], "{:.2f}")),
    ]


def shape(values: list[int]) -> str:
    """256 x 1408."""
    return " x ".join(map(str, values))


def actions(entry: dict[str, Any]) -> str:
    """planar_velocity, 4 x 2."""
    action = entry["action"]
    return f"{action['name']}, {action['block']} x {action['dimension']}"


def sizes(part: dict[str, Any]) -> str:
    """conv, channels 48, 96, 128."""
    rest = [f"{key} {numbers(value) if isinstance(value, list) else value}" for key, value in part.items()]
    return ", ".join(([part["type"]] if "type" in part else []) + [r for r in rest if not r.startswith("type ")])


def quantiles(surprise: dict[str, Any]) -> str:
    """50 % 0.0017, ..., threshold 0.033."""
    if not surprise["levels"]:
        return "not calibrated"
    pairs = zip(surprise["levels"], surprise["errors"], strict=True)
    return f"{', '.join(f'{100 * p:g} % {e:.4g}' for p, e in pairs)}; threshold {surprise['threshold']:.4g}"


def short(count: int) -> str:
    """18.03 M."""
    for size, letter in ORDERS:
        if count >= size:
            return f"{count / size:.4g} {letter}"
    return str(count)


def numbers(values: list) -> str:
    """0.5, 0.5, 0.5."""
    return ", ".join(f"{v:g}" if isinstance(v, (int, float)) else str(v) for v in values)


def told(value: float | None, form: str) -> str:
    """The value in that form, or a dash where there is none."""
    return "–" if value is None else form.format(value)


def millimetres(value: float | None) -> str:
    """Of a value in m."""
    return told(None if value is None else 1000 * value, "{:.3g} mm")

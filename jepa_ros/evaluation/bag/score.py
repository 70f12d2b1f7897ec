"""One number for a model on recordings: how well it predicts, sees and plans."""

from __future__ import annotations

import math
from typing import Any

SIGHT = 0.01
"""m of probe error that halves the part for seeing."""


def score(prediction_ratio: float | None, probe_error: float | None, gap_ratio: float | None) -> dict[str, Any]:
    """The geometric mean of three parts, each 1 at best and towards 0 the worse it is; None where one is unknown.

    prediction = 1 / (1 + √prediction_ratio at the horizon's end), the root to make it a ratio of lengths as the others
    are; sight = 1 / (1 + median error of the tool's probe / SIGHT); planning = 1 / (1 + gap_ratio). None of them
    saturates, so that better is always more; as they are multiplied, a model that fails at one is no good.
    """
    given = {"planning": gap_ratio}
    given["prediction"] = None if prediction_ratio is None else math.sqrt(max(prediction_ratio, 0.0))
    given["sight"] = None if probe_error is None else probe_error / SIGHT
    parts = {name: None if value is None else 1.0 / (1.0 + max(value, 0.0)) for name, value in given.items()}
    known = [value for value in parts.values() if value is not None]
    return {"score": math.prod(known) ** (1 / 3) if len(known) == 3 else None, "parts": parts}

"""Records of a training run over its updates: TensorBoard logs, and curves for reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class TensorBoard:
    """Writes losses every `every` updates, and every validation, to `directory`. Writes nothing if that is None or the
    package tensorboard is not installed."""

    def __init__(self, directory: Path | None, every: int = 20):
        self._directory, self._every, self._writer = directory, every, None

    def __enter__(self) -> TensorBoard:
        if self._directory is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return self
            self._writer = SummaryWriter(str(self._directory))
        return self

    def __exit__(self, *exception: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, values: Mapping[str, float]) -> None:
        """Log the losses of an update, `update` among them, and the figures of its validation."""
        update = values["update"]
        is_validated = "probe_r2" in values
        if self._writer is None or not (is_validated or update % self._every == 0):
            return
        for name, value in values.items():
            if name != "update":
                self._writer.add_scalar(name.replace("@", "_at_"), value, update)


def draw_curves(axes, entries: Sequence[Mapping], labels: Mapping[str, str], title: str, **settings: Any) -> None:
    """Draw a line over `update` for each key of `labels` that the entries have, with a legend if there are several."""
    for key, label in labels.items():
        if entries and key in entries[0]:
            axes.plot([e["update"] for e in entries], [e[key] for e in entries], label=label, lw=1)
    axes.set(title=title, xlabel="update", **settings)
    if len(axes.lines) > 1:
        axes.legend()

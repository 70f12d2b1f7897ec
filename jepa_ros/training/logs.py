"""TensorBoard logs of a training."""

from __future__ import annotations

from pathlib import Path


class TensorBoard:
    """Writes losses every `every` updates and each validation to `directory`; to nowhere where that is None or
    the package tensorboard is not installed."""

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

    def add(self, values: dict[str, float]) -> None:
        """Losses of an update, `update` among them, and what its validation found."""
        update = values["update"]
        validated = "probe_r2" in values
        if self._writer is None or not (validated or update % self._every == 0):
            return
        for name, value in values.items():
            if name != "update":
                self._writer.add_scalar(name.replace("@", "_at_"), value, update)

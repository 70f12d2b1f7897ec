"""Base of all training loops: learning rate, one step of the optimiser, progress, logs, and the state file.

World models (train_model.py), heads (heads.py) and pre-training (pretraining/loop.py) are `ResumableTrainer`s: a run
that was interrupted, also by SIGKILL, continues with the same losses to the same weights.
"""

from __future__ import annotations

import json
import math
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from jepa_ros import distributed
from jepa_ros.errors import InputError
from jepa_ros.text_files import atomic_path, write_atomically
from jepa_ros.world_model.device import CPU

STATE_FILE, HEADS_STATE_FILE, OPTIONS_FILE = "trainer.state", "heads.state", "options.json"
LOG_EVERY = 20  # updates between two entries of the TensorBoard log


@dataclass
class TrainingProgress:
    """Everything that a resumed run needs besides weights, optimiser and random generators.

    best: least validation error so far. curve: losses by update, thinned out. validation: figures of each validation.
    seconds: in updates and validations; loading: the part of them spent waiting for data. stopped: why training ended
    early, or empty.
    """

    update: int = 0
    best: float = math.inf
    curve: list[dict] = field(default_factory=list)
    validation: list[dict] = field(default_factory=list)
    seconds: float = 0.0
    loading: float = 0.0
    frames: int = 0
    stopped: str = ""

    @property
    def frames_per_second(self) -> float:
        """Return the training frames per second, of all processes together."""
        return self.frames / max(self.seconds, 1e-9)

    @property
    def loader_share(self) -> float:
        """Return the share of the time that updates waited for data."""
        return self.loading / max(self.seconds, 1e-9)


class ResumableTrainer(ABC):
    """Trains for `updates` updates and validates after every `validate_every`; losses are kept every `curve_every`."""

    def __init__(self, updates: int, validate_every: int, curve_every: int = 20, device: torch.device = CPU):
        self.updates, self.validate_every, self.curve_every = updates, validate_every, curve_every
        self.device, self.progress = device, TrainingProgress()

    @abstractmethod
    def _update(self) -> dict[str, float]:
        """Change the weights once; return the losses. Raises FloatingPointError if one is not finite."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Note figures on validation data in the progress and return them; may set `progress.stopped`."""

    @abstractmethod
    def state(self) -> dict:
        """Return weights, optimiser and random generators as `torch.load(weights_only=True)` reads them."""

    @abstractmethod
    def set_state(self, state: dict) -> None:
        """Take over what `state` returned."""

    def step(self) -> dict[str, float]:
        """Make one update; return its losses. Raises FloatingPointError if a loss is not finite."""
        values, p = self._update(), self.progress
        p.update += 1
        if p.update % self.curve_every == 0:
            p.curve.append({"update": p.update, **values})
        return values

    def run(self, state_file: Path | None, report: Callable[[dict], None], save_every: float = 60.0) -> None:
        """Train to the end of the schedule, or until `progress.stopped` is set.

        report: called after each update with its losses, figures of a validation if there was one, and `update`.
        state_file: written every `save_every` s, on Ctrl-C and at the end; None: the run cannot be resumed.
        """
        saved, p = time.monotonic(), self.progress
        with _deferred_interrupt() as interrupted:
            while p.update < self.updates and not p.stopped:
                started = time.monotonic()
                values = self.step()
                if p.update % self.validate_every == 0 or p.update == self.updates:
                    values = self.validate() | values
                p.seconds += time.monotonic() - started
                report(values | {"update": p.update})
                if interrupted() or time.monotonic() - saved > save_every:
                    self.save(state_file)
                    saved = time.monotonic()
                if interrupted():
                    raise KeyboardInterrupt
        self.save(state_file)

    def save(self, path: Path | None) -> None:
        """Write the state file in one step; with several processes the first one writes for all."""
        if path is None:
            return
        state = {"progress": asdict(self.progress), "torch": torch.get_rng_state()} | self.state()
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        if distributed.rank() == 0:
            with atomic_path(path) as partial:
                torch.save(state, partial)
        distributed.wait_for_ranks()

    def load(self, path: Path) -> None:
        """Resume from a state file that `save` wrote."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.progress = TrainingProgress(**state["progress"])
        self.set_state(state)
        if "torch" in state:
            torch.set_rng_state(state["torch"])
        if self.device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self.device)

    def load_if_there(self, path: Path) -> None:
        """Resume from a state file if there is one."""
        if path.exists():
            self.load(path)

    def check_finite(self, loss: float, name: str = "the") -> None:
        """Raise FloatingPointError, with the number of the update, if a loss is not finite."""
        if not math.isfinite(loss):
            raise FloatingPointError(f"update {self.progress.update}: {name} loss is {loss}")


def copy_weights(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a copy of a state dict that further updates do not change."""
    return {name: value.detach().clone() for name, value in state.items()}


def descend(
    loss: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    learning_rate: float,
    parameters: Sequence[torch.Tensor] = (),
    max_norm: float = 1.0,
) -> None:
    """Take one step of the optimiser down the gradient of `loss`.

    parameters: those whose gradient is averaged over all processes and clipped to `max_norm`; empty: neither.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if parameters:
        distributed.average_gradients(parameters)
        clip_grad_norm_(parameters, max_norm)
    optimizer.step()


def learning_rate_factor(update: int, updates: int, warm_up: int) -> float:
    """Return a share of the peak learning rate: a linear warm-up, times a cosine that falls to zero."""
    return min(1.0, (update + 1) / max(1, warm_up)) * 0.5 * (1 + math.cos(math.pi * min(1.0, update / max(1, updates))))


@contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C was pressed; the second press interrupts at once.

    Where SIGINT does not raise KeyboardInterrupt anyway (in worker processes, or beside other handlers), and with
    several processes, which would stop at different updates, nothing changes.
    """
    pressed = []

    def note(number: int, frame: object) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    defers = distributed.count_ranks() == 1 and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if defers:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        if defers:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def check_same_options(out: Path, options: dict, started: str = STATE_FILE) -> None:
    """Raise InputError if `out` holds a run with other options that has already been trained for a while.

    started: pattern of the files that such a run has; without one of them there is nothing to resume or to mix up.
    """
    path, wanted = out / OPTIONS_FILE, json.loads(json.dumps(options))
    if not path.exists() or not any(out.glob(started)):
        return
    try:
        found = json.loads(path.read_text())
        differ = sorted(key for key in wanted if _without_defaults(wanted[key]) != _without_defaults(found.get(key)))
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: cannot read the options of the earlier run ({error}); give another --out") from None
    if differ:
        action = "resume it with the same options, or give another directory"
        raise InputError(f"--out {out}: holds a run with other options ({', '.join(differ)}); {action}")


def _without_defaults(value: object) -> object:
    """Return a recipe without `cameras` where that is empty: runs from before that field can be resumed."""
    return {k: v for k, v in value.items() if (k, v) != ("cameras", [])} if isinstance(value, dict) else value


def write_options(out: Path, options: dict) -> None:
    """Note the options of a run in `out`, for `check_same_options`."""
    write_atomically(out / OPTIONS_FILE, json.dumps(options))


@contextmanager
def tensorboard_log(directory: Path | None) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Yield a function that logs losses every LOG_EVERY updates, and every validation, to `directory`.

    It takes the losses of an update, `update` among them, and the figures of its validation. It does nothing if
    `directory` is None or the package tensorboard is not installed.
    """
    try:
        if directory is None:
            raise ImportError
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        yield lambda values: None
        return

    def log(values: Mapping[str, float]) -> None:
        if "probe_r2" in values or values["update"] % LOG_EVERY == 0:
            for name, value in values.items():
                if name != "update":
                    writer.add_scalar(name.replace("@", "_at_"), value, values["update"])

    with SummaryWriter(str(directory)) as writer:
        yield log


def draw_curves(axes, entries: Sequence[Mapping], labels: Mapping[str, str], title: str, **settings: Any) -> None:
    """Draw a line over `update` for each key of `labels` that the entries have, with a legend if there are several."""
    for key, label in labels.items():
        if entries and key in entries[0]:
            axes.plot([e["update"] for e in entries], [e[key] for e in entries], label=label, lw=1)
    axes.set(title=title, xlabel="update", **settings)
    if len(axes.lines) > 1:
        axes.legend()

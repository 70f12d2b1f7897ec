"""Options of `collect` on a running graph."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """episodes, ticks: None for no limit. box: x from, to, y from, to; reset: x, y; m in the base frame. topic: of
    commands. axes, hold_button, end_button: see GamePad."""

    mode: str
    robot: str
    seed: int
    episodes: int | None
    ticks: int | None
    seconds: float | None
    box: tuple[float, float, float, float] | None
    reset: tuple[float, float] | None
    namespace: str
    use_sim_time: bool
    topic: str
    axes: tuple[int, int]
    hold_button: int
    end_button: int

"""What a person sees while the demo runs: a live panel on a terminal, else one line a step and a goal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jepa_ros.demo.record import DemoRecord, GoalRun

_REFRESH = 5  # Hz; more would cost the graph its cores
_BAR = 24  # characters


def make_display(headless: bool) -> Display:
    """The display for this standard output."""
    console = Console()
    return Display(console) if headless or not console.is_terminal else LiveDisplay(console)


class Display:
    """Plain lines. A context manager; ``result`` comes after it."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *exception) -> None:
        pass

    def say(self, text: str) -> None:
        """A step has begun."""
        self._line(text)

    def progress(self, record: DemoRecord, attempt: GoalRun, recorder) -> None:
        """A new distance."""

    def goal_done(self, record: DemoRecord, attempt: GoalRun) -> None:
        """A goal has ended."""
        how = "reached    " if attempt.reached else "NOT reached"
        start = "?" if attempt.start is None else f"{100 * attempt.start:5.1f}"
        final = "?" if attempt.final is None else f"{100 * attempt.final:4.1f}"
        seconds = attempt.times[-1] if attempt.times else 0.0
        number = f"{attempt.index + 1:>{len(str(record.wanted))}}/{record.wanted}"
        tail = "" if attempt.reached else f"  {attempt.reason}"
        self._line(f"goal {number}  {how}  {start} cm -> {final} cm in {seconds:4.1f} s{tail}")

    def result(self, record: DemoRecord, summary: dict[str, Any], out: Path) -> None:
        """The end, with everything written."""
        if record.ended:
            self._line(f"ended early: {record.ended}")
        latency, plan, frames = summary["latency_ms"], summary["plan_ms"], summary["frames"]
        self._line(
            f"{record.reached} of {len(record.goals)} goals reached, {record.wanted} wanted; "
            f"frame to controller p50 {_ms(latency['p50'])}, p99 {_ms(latency['p99'])}; search p50 {_ms(plan['p50'])}; "
            f"{summary['deadline_misses']} deadline misses in {summary['plans']} plans; "
            f"{frames['encoded']} of {frames['sent']} frames encoded; {record.wall_s:.0f} s"
        )
        for name in ("report.html", "summary.json", "demo.mp4"):
            if (out / name).is_file():
                self._line(f"  {out / name}")
        if record.ended or record.reached < len(record.goals):
            self._line(f"  {out / 'nodes.log'} has what the nodes said")

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class LiveDisplay(Display):
    """A small table that is redrawn in place; finished goals scroll by above it."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._shown = 0.0

    def __enter__(self) -> Display:
        self._live.start()
        return self

    def __exit__(self, *exception) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        self._live.update(Text(f"… {text}", style="dim"), refresh=True)

    def progress(self, record: DemoRecord, attempt: GoalRun, recorder) -> None:
        t, distance = attempt.times[-1], attempt.distances[-1]
        if 0 <= t - self._shown < 1 / _REFRESH:
            return
        self._shown = t
        planner, gate = recorder.planner, recorder.gate
        start = max(attempt.start, 1e-6)
        filled = round(_BAR * max(0.0, min(1.0, 1 - distance / start)))
        near = "green" if distance <= record.tolerance_m else "cyan"
        table = Table.grid(padding=(0, 2))
        goal = Text(f"goal {attempt.index + 1}/{record.wanted}", style="bold")
        bar = Text("━" * filled, style=near) + Text("━" * (_BAR - filled), style="dim")
        table.add_row(goal, bar, Text(f"{100 * distance:5.1f} cm", style=near), f"{t:4.1f} s")
        plan = f"plan {_ms(planner.plan_ms if planner else None)}"
        state = planner.text if planner and planner.text else (gate.text if gate else "")
        table.add_row(
            f"{record.reached} reached", Text(state, style="dim"), plan, f"latency {_ms(recorder.live_latency_ms)}"
        )
        self._live.update(table, refresh=True)


def _ms(value: float | None) -> str:
    return "– ms" if value is None else f"{value:.0f} ms"

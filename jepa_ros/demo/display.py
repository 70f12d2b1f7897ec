"""Display of a running demo: a live panel on a terminal, otherwise a line for each step and goal."""

from __future__ import annotations

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jepa_ros.demo.record import DemoRecord, GoalRun

_REFRESH_HZ = 5  # more would take processor time from the graph
_BAR_WIDTH = 24  # characters


def make_display(headless: bool) -> Display:
    """Return the display for this standard output."""
    console = Console()
    return Display(console) if headless or not console.is_terminal else LiveDisplay(console)


class Display:
    """Prints plain lines. A context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *exception) -> None:
        pass

    def show_step(self, text: str) -> None:
        """Show that a step has begun."""
        self._print_line(text)

    def show_distance(self, record: DemoRecord, run: GoalRun, recorder) -> None:
        """Show the newest distance."""

    def show_goal(self, record: DemoRecord, run: GoalRun) -> None:
        """Show how a goal has ended."""
        result = "reached    " if run.reached else "NOT reached"
        start = "?" if run.start is None else f"{100 * run.start:5.1f}"
        final = "?" if run.final is None else f"{100 * run.final:4.1f}"
        seconds = run.times[-1] if run.times else 0.0
        number = f"{run.index + 1:>{len(str(record.wanted))}}/{record.wanted}"
        reason = "" if run.reached else f"  {run.reason}"
        self._print_line(f"goal {number}  {result}  {start} cm -> {final} cm in {seconds:4.1f} s{reason}")

    def _print_line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class LiveDisplay(Display):
    """Redraws a small table in place; finished goals scroll by above it."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._shown_at = 0.0

    def __enter__(self) -> Display:
        self._live.start()
        return self

    def __exit__(self, *exception) -> None:
        self._live.stop()

    def show_step(self, text: str) -> None:
        self._live.update(Text(f"… {text}", style="dim"), refresh=True)

    def show_distance(self, record: DemoRecord, run: GoalRun, recorder) -> None:
        t, distance = run.times[-1], run.distances[-1]
        if 0 <= t - self._shown_at < 1 / _REFRESH_HZ:
            return
        self._shown_at = t
        planner, gate = recorder.planner, recorder.gate
        share = 1 - distance / max(run.start, 1e-6)
        filled = round(_BAR_WIDTH * max(0.0, min(1.0, share)))
        style = "green" if distance <= record.tolerance_m else "cyan"
        state = planner.text if planner and planner.text else (gate.text if gate else "")
        table = Table.grid(padding=(0, 2))
        table.add_row(
            Text(f"goal {run.index + 1}/{record.wanted}", style="bold"),
            Text("━" * filled, style=style) + Text("━" * (_BAR_WIDTH - filled), style="dim"),
            Text(f"{100 * distance:5.1f} cm", style=style),
            f"{t:4.1f} s",
        )
        table.add_row(
            f"{record.reached} reached",
            Text(state, style="dim"),
            f"plan {_ms(planner.plan_ms if planner else None)}",
            f"latency {_ms(recorder.live_latency_ms)}",
        )
        self._live.update(table, refresh=True)


def _ms(value: float | None) -> str:
    return "– ms" if value is None else f"{value:.0f} ms"

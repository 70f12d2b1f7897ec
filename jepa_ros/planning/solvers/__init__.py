"""Search algorithms, one file each, behind planning.solver.Solver."""

from __future__ import annotations

from dataclasses import fields

from jepa_ros.errors import InputError
from jepa_ros.planning.solver import Solver
from jepa_ros.planning.solvers.cem import Cem
from jepa_ros.planning.solvers.gradient import Gradient
from jepa_ros.planning.solvers.icem import ICem
from jepa_ros.planning.solvers.mppi import Mppi
from jepa_ros.planning.solvers.shooting import Shooting

SOLVERS: dict[str, type[Solver]] = {"icem": ICem, "cem": Cem, "mppi": Mppi, "gradient": Gradient, "shooting": Shooting}

__all__ = ["SOLVERS", "Cem", "Gradient", "ICem", "Mppi", "Shooting", "make_solver"]


def make_solver(name: str, **settings: float) -> Solver:
    """The solver called `name`; settings: in place of its own. Raises InputError for an unknown name or setting."""
    if name not in SOLVERS:
        raise InputError(f"solver: expected one of {', '.join(SOLVERS)}, found '{name}'")
    known = {field.name for field in fields(SOLVERS[name])}
    if unknown := sorted(set(settings) - known):
        raise InputError(f"solver {name}: expected settings of {', '.join(sorted(known))}, found {unknown[0]}")
    return SOLVERS[name](**settings)

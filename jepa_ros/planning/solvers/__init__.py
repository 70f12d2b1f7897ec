"""Search algorithms behind planning.solver.Solver, one file each. planning.SOLVERS lists them by name.

The planner calls make_solver(); a solver calls only the cost function that it is given. Start reading in cem.py.
"""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module

from jepa_ros.errors import InputError
from jepa_ros.planning import SOLVERS
from jepa_ros.planning.solver import Solver


def solver_class(name: str) -> type[Solver]:
    """Return the class of the solver called `name`. Raises InputError for an unknown name."""
    if name not in SOLVERS:
        raise InputError(f"solver: expected one of {', '.join(SOLVERS)}, found '{name}'")
    return getattr(import_module(f"jepa_ros.planning.solvers.{name}"), SOLVERS[name])


def make_solver(name: str, **settings: float) -> Solver:
    """Return the solver called `name`, with `settings` in place of its defaults.

    Raises InputError for an unknown name or setting.
    """
    made = solver_class(name)
    known = {field.name for field in fields(made)}
    if unknown := sorted(set(settings) - known):
        raise InputError(f"solver {name}: expected settings of {', '.join(sorted(known))}, found {unknown[0]}")
    return made(**settings)

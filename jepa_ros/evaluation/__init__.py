"""Evaluation of models: in closed loop in simulation (`sim.py`), on bags (`bag/`), comparison (`compare_runs.py`).

`closed_loop.py` runs camera, encoder, planner, gate and physics in one process; `sim.py` calls it for many goals.
"""

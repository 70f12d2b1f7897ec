"""Comparison of methods against collapse, with everything else the same.

`run.compare_methods` tunes and trains each method in worker processes; `report.py` summarises. Start reading in
`run.py`.
"""

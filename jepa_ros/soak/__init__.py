"""Soak test: the simulated graph for a long time, under load, with one injected fault after the other.

`run.run_soak` starts the graph; `session.py` injects faults (`faults.py`) and records the reaction (`observer.py`);
`report.py` summarises. Start reading in `session.py`.
"""

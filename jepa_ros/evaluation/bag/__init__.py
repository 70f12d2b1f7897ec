"""`jepa_ros evaluate bag`: evaluates a model on recordings, in process, without ROS and with equal results on each run.

`run.py` (the command) and `evaluate.py` (the Python function) read a bag once (`reading/`), find the situations in it
(`reading/situations.py`), compute every metric in `metrics/table.py`, and pass the results to `output/`.
"""

"""`jepa_ros evaluate bag`: evaluates a model on recordings, in process, without ROS and with equal results on each run.

`evaluate.py` reads a bag once (`reading/`), finds the situations in it (`reading/situations.py`), computes every metric
in `metrics/table.py`, and passes the results to `output/`.
"""

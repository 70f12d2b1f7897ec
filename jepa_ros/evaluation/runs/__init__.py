"""`jepa_ros compare runs`: finished evaluations of the same bags or goals, each compared with the first.

compare.py reads their samples (samples.py) and gives each difference a confidence interval (bootstrap.py). Start reading
in compare.py.
"""

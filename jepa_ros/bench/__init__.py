"""Benchmarks of our code against reference implementations and of the offline score against success.

`planning` (`jepa_ros bench plan`) times both sides on the same search and in closed loop; `offline_score` (`jepa_ros
bench offline`) checks whether the score of `evaluate bag` predicts success. Start reading there; both call downwards.
"""

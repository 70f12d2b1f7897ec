"""Metrics of `evaluate bag`, registered in `table.METRICS`. Start reading there.

Each has two functions: `compute_...(recording, situations)` returns samples of one recording by name (arrays or lists
with an entry per sample); `summarize_...(samples, spec)` turns the samples of one or several recordings into figures.
"""

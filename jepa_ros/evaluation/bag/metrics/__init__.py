"""Metrics of `evaluate bag`, one idea a file, registered in `table.METRICS`.

Each has two functions: `compute(recording, situations)` returns samples of one recording by name (arrays or lists with
an entry per sample); `summarize(samples, spec)` turns the samples of one or several recordings into a metric's figures.
"""

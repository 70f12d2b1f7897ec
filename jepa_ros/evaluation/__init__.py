"""Measuring what a model does: evaluation in process, summaries and reports."""

"""Outputs of `evaluate bag`: summary.json with the verdict of thresholds, report.html, and the table of frames.

Outputs are made of finished results and read no bag. Start reading in summary.py.
"""

"""What `evaluate bag` writes: summary.json, thresholds on its metrics, report.html, and the table of frames.

Outputs are made of finished results and read no bag. Start reading in summary.py.
"""

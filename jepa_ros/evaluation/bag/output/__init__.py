"""What `evaluate bag` writes: summary.json, thresholds on its metrics, report.html, and the table of frames."""

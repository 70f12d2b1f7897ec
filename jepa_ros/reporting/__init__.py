"""What every long command gives: progress, a result on the terminal, `summary.json` and `report.html`.

Features call these functions; nothing here knows a feature. Start reading in `report.py` (the page), `result.py` (the
terminal) and `output.py` (output paths, tried before work begins and written whole or not at all).
"""

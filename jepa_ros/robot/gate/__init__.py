"""The motion gate: checks plans and turns them into windows of motion that always end at rest.

`gate.py` is the state machine. It calls `plan_checks.py` for plans, `windows.py` for what is sent, `input_health.py`
for age and plausibility of inputs, and `ticks.py` for `executed`. `window_auditor.py` checks the output of a gate
independently, in tests and soak runs.
"""

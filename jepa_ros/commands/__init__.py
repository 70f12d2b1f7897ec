"""The commands of `jepa_ros`, one module a subject.

A command parses and checks its options (base.py), then calls one function of a feature, which is imported only then.
Start reading in base.py; jepa_ros.cli puts the modules together.
"""

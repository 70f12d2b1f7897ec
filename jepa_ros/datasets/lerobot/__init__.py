"""LeRobot datasets (format v3.0): `export` writes one from a dataset of ours, `importing` reads one, `validation`
checks one.

Start with `export.export_dataset`; `layout` has the format's names, `tables`, `video` and `statistics` its files.
"""

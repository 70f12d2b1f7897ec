"""LeRobot datasets (format v3.0): `export` writes one from a dataset of ours, `importing` reads one, `validation`
checks one.

Start with `export.export_dataset`; `files` has the format's names, tables and videos.
"""

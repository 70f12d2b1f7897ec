"""Thin lifecycle nodes around plain functions and classes. Each module has `main(argv=None)`."""

"""The graph's lifecycle nodes, thin shells around plain functions and classes. Each module has `main(argv=None)`."""

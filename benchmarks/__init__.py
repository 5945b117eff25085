"""Slurper beside its rivals, measured as whole processes that take turns.

`run` measures the `sets` and appends to a results file, from which `report` makes the tables and
plots of docs/performance.md. `memory` is a measurement of its own.
"""

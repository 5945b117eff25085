"""Slurper beside its rivals, measured as whole processes in one interleaved run."""

"""What ends one measurement, but not the others."""

from __future__ import annotations


class MeasurementFailed(Exception):
    """A tool failed, or its copy is not what it should be: a figure of it is worth nothing."""

"""Stores without a network, for tests and measurements."""

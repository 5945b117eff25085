"""Stores without a network, for tests, demonstrations and measurements."""

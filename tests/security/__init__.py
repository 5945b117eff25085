"""Attacks on a running service, and the bounds that hold against them."""

"""Attacks that failed, or that no longer work: each with the bound that holds."""

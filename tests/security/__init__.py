"""Attacks on a running service, each with the bound that must hold."""

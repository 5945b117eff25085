"""Attacks, each with the bound that must hold."""

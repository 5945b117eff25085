"""Runs tasks on workers and returns their reports."""

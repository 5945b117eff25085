"""Puts tasks onto workers and brings their reports back."""

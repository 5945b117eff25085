"""Moves running jobs forward: whose turn it is, which task to send, what its report means."""

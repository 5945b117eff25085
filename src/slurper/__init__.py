"""Slurper moves whole buckets between object stores, byte-exact and crash-safe."""

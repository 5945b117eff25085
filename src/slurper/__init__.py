"""Slurper moves whole buckets between object stores, byte-exact and crash-safe."""

import os

# None of pydantic's plugins is ours, and to look for some it reads what every package installed
# beside us says of itself: that would take longer than all of our own modules.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

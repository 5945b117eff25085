"""Many small jobs of many accounts, for a long time: `make soak`, and half a minute of it."""

"""The HTTP face: the Super Slurper wire contract over `service.jobs`."""

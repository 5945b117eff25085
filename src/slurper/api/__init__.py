"""The HTTP face: the Super Slurper wire contract over `jobs.service`."""

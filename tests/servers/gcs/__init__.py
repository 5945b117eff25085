"""Google Cloud Storage for tests: a strict server of ours, and a guard in front of another's."""

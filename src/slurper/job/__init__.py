"""What a job is, and what may be done to it."""

"""What a job is, what may be done to it, and what moves it forward."""

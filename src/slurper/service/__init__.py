"""What the API and the command line may do with jobs, and the checks before a job is made."""

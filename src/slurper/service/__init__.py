"""What the API and the command line may do with jobs, and what is checked before one is made."""

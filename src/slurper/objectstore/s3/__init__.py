"""The S3 REST interface."""

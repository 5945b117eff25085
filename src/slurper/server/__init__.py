"""The HTTP server in front of the API: what it takes from clients, and for how long."""

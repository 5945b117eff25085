"""The HTTP API. It offers `service.jobs` in the form of Cloudflare's Super Slurper API."""

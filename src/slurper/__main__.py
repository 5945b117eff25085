"""`python -m slurper`, for where the `slurper` script is not on PATH."""

from slurper.cli import main

main()

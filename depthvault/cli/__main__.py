"""`python -m depthvault.cli`: the same as the command `depthvault`."""

from depthvault.cli import main

main()

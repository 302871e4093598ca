"""`python -m auvtool` is `auvtool`."""

from auvtool.cli.app import main

main()

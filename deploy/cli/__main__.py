"""`python -m deploy.cli`: the same command, without the console script."""

from deploy.cli.main import main

main()

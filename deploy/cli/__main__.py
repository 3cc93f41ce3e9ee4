"""`python -m deploy.cli`: the same command, without the console script."""

import gc

# What a program loads stays. Looking for garbage in it all the while is an eighth of the time that starting takes.
gc.set_threshold(200_000, 20, 50)

from deploy.cli.main import main  # noqa: E402

main()

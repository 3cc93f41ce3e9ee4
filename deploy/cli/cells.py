"""`--cell`: which cells a verb is about, besides the main one."""

from collections.abc import Iterable

from deploy.cli.errors import CommandError, ExitCode


def cells_of(given: Iterable[str] | None) -> tuple[str, ...]:
    """Read the names. Raises CommandError on what is none."""
    from deploy.local.cells import asked
    from deploy.local.errors import StackError

    try:
        return asked(given or ())
    except StackError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error

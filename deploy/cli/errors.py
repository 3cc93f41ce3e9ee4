"""What a verb may end with, and the one place that turns a failure into a line of text and an exit code."""

import functools
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import ParamSpec

import typer

from deploy.local.errors import StackError

Parameters = ParamSpec("Parameters")


class ExitCode(IntEnum):
    """The exit codes of every verb."""

    DONE = 0
    NOT_SO = 1
    USAGE = 2
    ENVIRONMENT = 3
    INTERRUPTED = 130


class CommandError(Exception):
    """A verb cannot do what it was asked; the message is one line that says what to do."""

    def __init__(self, message: str, exit_code: int = ExitCode.NOT_SO) -> None:
        """Pair the message with an exit code."""
        super().__init__(message)
        self.exit_code = exit_code


def verb(command: Callable[Parameters, int | None]) -> Callable[Parameters, None]:
    """Make a function a verb: its result is the exit code, its known errors are told without a traceback."""

    @functools.wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            code = command(*args, **kwargs)
        except CommandError as error:
            code = _tell(error, error.exit_code)
        except StackError as error:
            code = _tell(error, ExitCode.ENVIRONMENT)
        except KeyboardInterrupt:
            code = ExitCode.INTERRUPTED
        raise typer.Exit(code or ExitCode.DONE)

    return run


def _tell(error: Exception, code: int) -> int:
    print(f"cartwright: {error}", file=sys.stderr)
    return code

"""What can keep the local stack from doing its work.

StackError            the environment prevents it (exit code 3)
└── ProcessError      a child process ended, or never became ready; carries its name and the end of its log
"""


class StackError(Exception):
    """The environment (port, disk, Java, database, broker) prevents it; the message says what to do."""


class ProcessError(StackError):
    """A child process ended on its own, or was not ready in time."""

    def __init__(self, name: str, reason: str, log_tail: str) -> None:
        """Name the process, say what happened and show the end of its log."""
        self.name = name
        self.log_tail = log_tail
        super().__init__(f"{name} {reason}" + (f"; the end of its log:\n{log_tail}" if log_tail else ""))

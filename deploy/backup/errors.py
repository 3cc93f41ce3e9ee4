"""What stands in the way of a backup or a restore."""

from deploy.local.errors import StackError


class BackupError(StackError):
    """It cannot be taken or put back; one line that says why."""

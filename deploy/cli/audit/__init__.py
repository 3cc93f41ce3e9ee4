"""`audit verify`: whether the audit trail is as it was written."""

from deploy.cli.audit.run import run

__all__ = ["run"]

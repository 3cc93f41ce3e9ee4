"""`demo`: a tenant, a small catalogue, ten purchases; what became of them, and the story of one."""

from deploy.cli.demo.run import run

__all__ = ["run"]

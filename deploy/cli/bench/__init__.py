"""`bench`: what a relay and an inbox of the kernel do on this machine, beside baselines measured in the same run."""

from deploy.cli.bench.run import run

__all__ = ["run"]

"""`replay`: buys a real retailer's order history through the public APIs, and reconciles it to the penny."""

from deploy.cli.replay.run import run

__all__ = ["run"]

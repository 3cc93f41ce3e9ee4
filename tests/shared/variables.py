"""What a child of a test inherits."""

import os


def without_ours() -> dict[str, str]:
    """The variables of this machine, and none of ours: no servers of somebody else's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CARTWRIGHT_")}

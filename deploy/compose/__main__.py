"""`python -m deploy.compose STRIPE_KEY_FILE` makes what the system is given, beside `compose.yaml`: once, and nothing over it."""

import sys
from pathlib import Path

from deploy.compose.credentials import write


def main(arguments: list[str]) -> int:
    """Make it."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)  # noqa: T201 - a command line
        return 2
    write(Path(__file__).parent, Path(arguments[0]).read_text(encoding="utf-8").strip())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

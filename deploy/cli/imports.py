"""`python -m deploy.cli.imports`: import-linter, which has a console script but nothing that `-m` would run."""

import sys

from importlinter.cli import lint_imports

if __name__ == "__main__":
    sys.exit(lint_imports(no_logo=True))

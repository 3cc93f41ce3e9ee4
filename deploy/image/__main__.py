"""`python -m deploy.image build FOLDER` builds the image of the commit that is checked out; `lock` locks Debian's packages."""

import argparse
import sys
import tempfile
from pathlib import Path

from deploy.image import build, debian
from deploy.image.debian import LockError
from deploy.image.python import PythonError
from deploy.local.errors import StackError
from deploy.local.state import default_home


def main() -> int:
    """Do what is asked."""
    parser = argparse.ArgumentParser(prog="python -m deploy.image", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("lock", help="lock the newest packages of Debian for this architecture")
    building = verbs.add_parser("build", help="build the image")
    building.add_argument("folder", type=Path, help="an OCI image layout is made there")
    building.add_argument("--commit", default="HEAD", help="whose code it has")
    asked = parser.parse_args()
    try:
        if asked.verb == "lock":
            with tempfile.TemporaryDirectory() as scratch:
                debian.lock(Path(scratch))
            return 0
        built = build.build(asked.folder, default_home() / "image", commit=asked.commit, say=_say)
    except (LockError, PythonError, StackError) as error:
        _say(str(error))
        return 3
    print(built.digest)  # noqa: T201 - what is asked for
    return 0


def _say(what: str) -> None:
    print(f"image: {what}", file=sys.stderr, flush=True)  # noqa: T201 - a command line


if __name__ == "__main__":
    raise SystemExit(main())

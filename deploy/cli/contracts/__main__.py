"""`python -m deploy.cli.contracts` writes the generated contracts; with `--check` it judges them and writes nothing.

Judged are two things: whether the files are what the code says, and whether the code breaks an event that was there
before. Before means what is committed, so that writing the files anew hides nothing: HEAD, and HEAD's first parent,
which for a merge is the branch that is merged into. Where nothing is committed it means the files as they are.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from deploy.cli.contracts import files
from deploy.cli.contracts.compatibility import breaks
from deploy.cli.errors import CommandError, ExitCode
from deploy.local.state import ROOT

_REVISIONS: Final = ("HEAD", "HEAD^1")


def bases(root: Path = ROOT) -> dict[str, files.Schemas]:
    """What the code is compared with, each under the name that messages call it by."""
    found = {revision: files.committed(revision, root) for revision in _REVISIONS}
    return {revision: schemas for revision, schemas in found.items() if schemas} or {"the files": files.working(root)}


def broken(before: files.Schemas, after: files.Schemas, accepted: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Every event that cannot be read as before, and why; those left behind on purpose are left out."""
    for name, schema in sorted(before.items()):
        if f"{name}@{files.digest(schema)}" in accepted:
            continue
        found = [str(each) for each in breaks(schema, after[name])] if name in after else ["the event is gone"]
        if found:
            yield name, found


def advice(name: str, schema: files.Schema) -> str:
    """Tell what to do about a broken event."""
    topic, _, event = name.partition("/")
    type_, _, version = event.rpartition(".")
    return (
        f"  Leave {type_} {version} as it was and publish a new version beside it:"
        f' @event("{topic}", "{type_}", …, version={int(version) + 1}).\n'
        f"  If nobody reads it any more, or it was never released, say so in {files.DIRECTORY / files.BREAKS}:\n"
        f"    {name}@{files.digest(schema)}: <reason>"
    )


def report(root: Path = ROOT) -> Iterator[str]:
    """Tell each broken event once, compared with the newest base that it breaks."""
    accepted, told = files.accepted(root), set[str]()
    for base, before in bases(root).items():
        for name, found in broken(before, files.schemas(), accepted):
            if name not in told:
                told.add(name)
                lines = [f"{name} breaks those who know it, compared with {base}:", *(f"  - {each}" for each in found)]
                yield "\n".join([*lines, advice(name, before[name])])


def main(arguments: Sequence[str]) -> int:
    """Write the contracts, or with `--check` tell what is out of date and what breaks; 1 when anything is."""
    if list(arguments) not in ([], ["--check"]):
        print("usage: python -m deploy.cli.contracts [--check]", file=sys.stderr)
        return ExitCode.USAGE
    if not arguments:
        for file in files.write():
            print(f"{file.relative_to(ROOT)} is {'written' if file.exists() else 'removed'}")
        return ExitCode.DONE
    problems = [f"{file.relative_to(ROOT)} is out of date: ./cartwright fmt" for file in files.stale()]
    try:
        problems += report()
    except CommandError as error:
        problems.append(str(error))
    for problem in problems:
        print(problem)
    return ExitCode.NOT_SO if problems else ExitCode.DONE


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

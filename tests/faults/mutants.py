"""Deliberate bugs in the kernel, each one line of the real code written otherwise, to see whether the proofs notice.

`python -m tests.faults.mutants NAME` is the nursery of the chaos with that bug in it: an import hook changes the line
while its module is loaded. The kernel itself has no switch for this, and a line that is no longer there is an error.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug: this line of that module, as it is and as it should never be."""

    name: str
    module: str
    line: str
    changed: str

    def applied(self, source: str) -> str:
        """The module with the bug in it. Raises ValueError unless the line is there exactly once."""
        lines = source.split("\n")
        places = [index for index, line in enumerate(lines) if line.strip() == self.line]
        if len(places) != 1:
            raise ValueError(f"{self.name}: the line is in {self.module} {len(places)} times, not once: {self.line}")
        [place] = places
        indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
        lines[place] = indent + self.changed
        return "\n".join(lines)

    @property
    def path(self) -> Path:
        return ROOT / Path(*self.module.split(".")).with_suffix(".py")


MESSAGING = "libs.common.messaging"

IN_PROGRESS = "WHERE txid = ANY ({in_progress}::text[]::xid8[]) AND txid < {xmax}::text::xid8"

MUTANTS: Mapping[str, Mutant] = {
    mutant.name: mutant
    for mutant in (
        Mutant(
            "the window closes at now instead of where it ended",
            f"{MESSAGING}.relay.cursor",
            'CLOSE_AND_OPEN = _opening(f"""UPDATE outbox_cursor SET lo = hi, hi = pg_current_snapshot(), '
            "win = win + 1, last_n = 0,",
            'CLOSE_AND_OPEN = _opening(f"""UPDATE outbox_cursor SET lo = pg_current_snapshot(), hi = pg_current_snapshot(), '
            "win = win + 1, last_n = 0,",
        ),
        Mutant(
            "the cursor is a watermark over ids",
            f"{MESSAGING}.relay.window",
            f'{IN_PROGRESS}"""  # noqa: S608 - our own constants',
            f"{IN_PROGRESS} AND id > "
            '(SELECT max(o.id) FROM outbox_event o WHERE pg_visible_in_snapshot(o.txid, (SELECT lo FROM outbox_cursor)))"""',
        ),
        Mutant(
            "a window forgets what was in progress when it began",
            f"{MESSAGING}.relay.cursor",
            'return xmax, [xid for xid in in_progress.split(",") if xid]',
            "return xmax, []",
        ),
        Mutant(
            "events are ordered by their transaction",
            f"{MESSAGING}.relay.window",
            "SELECT *, row_number() OVER (PARTITION BY tenant_id ORDER BY id) AS round FROM visible",
            "SELECT *, row_number() OVER (PARTITION BY tenant_id ORDER BY txid, id) AS round FROM visible",
        ),
        Mutant(
            "events are published outside the transaction",
            f"{MESSAGING}.shell",
            "writes.append(events(aggregates.published, self.source))",
            "async with self.database.transaction(p.cause.tenant_id for p in aggregates.published) as outside: "
            "await write(outside, [events(aggregates.published, self.source)])",
        ),
        Mutant(
            "the cursor moves without comparing",
            f"{MESSAGING}.relay.cursor",
            'WHERE owner = $1 AND win = $2 AND last_n = $3 AND hi IS NULL""")  # noqa: S608',
            'WHERE $1::text || $2::bigint || $3::bigint IS NOT NULL""")',
        ),
        Mutant(
            "a slot is emptied when it is committed instead of published",
            f"{MESSAGING}.schema.v2",
            "SELECT lo INTO published FROM outbox_cursor;",
            "SELECT pg_current_snapshot() INTO published;",
        ),
        Mutant(
            "offsets are stored before the effects",
            f"{MESSAGING}.batch",
            "decided = await self.decided(connection, found, fence, spans)",
            "moved = self._advance(offsets, fence.marks); await connection.execute(moved.sql, *moved.arguments); "
            "await connection.execute("
            "\"SELECT set_config('cartwright.tenant_ids', current_setting('cartwright.tenant_ids'), false); COMMIT AND CHAIN\"); "
            "decided = await self.decided(connection, found, fence, spans)",
        ),
        Mutant(
            "there is no fence",
            f"{MESSAGING}.batch",
            'if partition not in found or found[partition]["next_offset"] != stored.get(partition):',
            "if partition not in found:",
        ),
        Mutant(
            "the watermark is of all partitions together",
            f"{MESSAGING}.ordering",
            "seen = marks[partition]",
            "seen = marks[min(marks)]",
        ),
        Mutant(
            "the watermark lets the last message pass twice",
            f"{MESSAGING}.ordering",
            "if found.position <= seen.get(found.origin, NEVER):",
            "if found.position < seen.get(found.origin, NEVER):",
        ),
        Mutant(
            "a failed batch is acknowledged",
            f"{MESSAGING}.inbox.lanes",
            "await self._back_off(error, read)",
            "self._failures = 0",
        ),
        Mutant(
            "later messages of a parked key do not queue",
            f"{MESSAGING}.batch",
            "if blocked and key_of(ordered[index]) in blocked:",
            "if False:",
        ),
    )
}


class _Loader(SourceFileLoader):
    """Compiles the changed source, and neither reads nor leaves compiled code."""

    mutant: Mutant

    def get_code(self, _fullname: str) -> CodeType:
        source = self.mutant.applied(Path(self.path).read_text())
        return compile(source, f"{self.path} (mutant)", "exec")


class _Finder(MetaPathFinder):
    """Finds the one module with a bug in it."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, fullname: str, path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is None or spec.origin is None:
            raise ImportError(f"{fullname} is not there to be changed")
        spec.loader = _Loader(fullname, spec.origin)
        spec.loader.mutant = self._mutant
        return spec


if __name__ == "__main__":
    [_, name] = sys.argv
    sys.meta_path.insert(0, _Finder(MUTANTS[name]))

    from tests.faults.chaos import actors

    if MUTANTS[name].module not in sys.modules:
        sys.exit(f"nobody imported {MUTANTS[name].module}")
    actors.main()

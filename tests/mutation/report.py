"""What became of the mutants: told while they are played, compared with what is known, and kept."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from tests.mutation.sites import Mutant

HERE = Path(__file__).parent
EQUIVALENT = HERE / "equivalent.yaml"
"""Mutants that no test can notice, by name, and why."""
KILLERS = HERE / "killers.json"
"""Which test noticed a mutant last: it is tried first."""


HUNG = "its time was over"


class Report:
    """Counts, and knows which survivors are known."""

    def __init__(self, mutants: Sequence[Mutant], *, is_json: bool) -> None:
        self.mutants = mutants
        self.killers: Mapping[str, str] = json.loads(KILLERS.read_text()) if KILLERS.exists() else {}
        self._equivalent: Mapping[str, str] = (yaml.safe_load(EQUIVALENT.read_text()) if EQUIVALENT.exists() else None) or {}
        self._is_json = is_json
        self._killed: dict[str, str] = {}
        self._survived: list[Mutant] = []
        self._skipped: list[Mutant] = []
        self._hung = 0
        self._begun = time.monotonic()

    def say(self, line: str) -> None:
        """A line of progress."""
        print(f"{time.monotonic() - self._begun:6.1f} s  {line}", file=sys.stderr, flush=True)

    def killed(self, mutant: Mutant, by: str) -> None:
        self._killed[mutant.name] = by
        if "::" not in by and by != HUNG:
            self.say(f"{by}: {_told(mutant)}")
        self._progress()

    def hung(self, mutant: Mutant) -> None:
        """Its tests came to no end."""
        self._hung += 1
        self.killed(mutant, HUNG)

    def survived(self, mutant: Mutant) -> None:
        self._survived.append(mutant)
        if mutant.name not in self._equivalent:
            self.say(f"survived: {_told(mutant)}")
        self._progress()

    def not_applicable(self, mutant: Mutant) -> None:
        """Nothing runs any differently for it: it is no mutant."""
        self._skipped.append(mutant)

    def _progress(self) -> None:
        done = len(self._killed) + len(self._survived)
        if done % 20 == 0:
            self.say(f"{done} of {len(self.mutants)}: {len(self._killed)} noticed, {len(self._survived)} not")

    @property
    def unlisted(self) -> list[Mutant]:
        """Survivors that nobody has given a reason for."""
        return [mutant for mutant in self._survived if mutant.name not in self._equivalent]

    def told(self) -> bool:
        """Tell what became of all of them; whether all is well: each was noticed, or is known to be no bug."""
        played = len(self._killed) + len(self._survived)
        percent = 100 * len(self._killed) / played if played else 100.0
        overtaken = sorted(name for name in self._killed if name in self._equivalent)
        facts = {
            "mutants": played,
            "killed": len(self._killed),
            "of_them_hung": self._hung,
            "percent": round(percent, 1),
            "equivalent": len(self._survived) - len(self.unlisted),
            "survived": [_told(mutant) for mutant in self.unlisted],
            "not_applicable": len(self._skipped),
            "listed_and_killed": overtaken,
            "seconds": round(time.monotonic() - self._begun, 1),
        }
        if self._is_json:
            print(json.dumps(facts, indent=2, ensure_ascii=False), flush=True)
        self.say(
            f"{played} mutants: {len(self._killed)} noticed ({percent:.1f} %), "
            f"{facts['equivalent']} equal, {len(self.unlisted)} not"
        )
        for name in overtaken:
            self.say(f"listed as equal, and noticed: {name}")
        return not self.unlisted and not overtaken

    def keep(self) -> None:
        """Write down who noticed what, for the next time."""
        kept = {**self.killers, **{name: by for name, by in self._killed.items() if "::" in by}}
        KILLERS.write_text(json.dumps(dict(sorted(kept.items())), indent=0, ensure_ascii=False) + "\n")


def _told(mutant: Mutant) -> str:
    return f"{mutant.name} (line {mutant.line})"

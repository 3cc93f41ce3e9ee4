"""What is changed, and by which tests that should be seen: quick ones, which take under two minutes together."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.sites import ROOT, Mutant, mutants_of


@dataclass(frozen=True, slots=True)
class Area:
    """Code, and the tests that are to notice what is wrong with it."""

    code: tuple[str, ...]
    tests: tuple[str, ...]

    def covers(self, path: Path) -> bool:
        """Whether this file is of it."""
        name = str(path.relative_to(ROOT))
        return any(name == each or name.startswith(f"{each}/") for each in self.code)

    def has(self, test: str) -> bool:
        """Whether this test is to notice what is wrong with it."""
        return any(test.startswith(each) for each in self.tests)


AREAS = (
    Area(("services/cart/domain", "services/cart/handlers"), ("tests/unit/cart",)),
    Area(("services/checkout/domain", "services/checkout/handlers"), ("tests/unit/checkout", "tests/unit/joint")),
    Area(("services/identity/domain", "services/identity/handlers"), ("tests/unit/identity",)),
    Area(
        ("libs/common/auth.py", "libs/common/keys.py", "libs/common/revocations.py"),
        (
            "tests/unit/common/test_tokens.py",
            "tests/unit/common/test_keys.py",
            "tests/unit/common/test_revocations.py",
        ),
    ),
    Area(("services/payments/domain",), ("tests/unit/payments", "tests/unit/joint")),
    Area(
        (
            "services/payments/handlers",
            "services/payments/jobs/provider/executor.py",
            "services/payments/jobs/provider/calling.py",
            "services/payments/repository/provider/operations.py",
        ),
        (
            "tests/unit/payments",
            "tests/unit/joint",
            "tests/integration/test_claims.py",
            "tests/integration/test_payments.py",
            "tests/integration/test_refunds.py",
        ),
    ),
    Area(
        ("services/payments/jobs/provider/webhooks.py", "services/payments/repository/provider/webhooks.py"),
        ("tests/unit/payments", "tests/integration/test_claims.py", "tests/integration/test_webhooks.py"),
    ),
    Area(
        (
            "libs/common/messaging/shell.py",
            "libs/common/messaging/audit.py",
            "libs/common/messaging/idempotency.py",
            "libs/common/decision.py",
        ),
        (
            "tests/integration/test_idempotency.py",
            "tests/integration/test_concurrency.py",
            "tests/integration/test_shell.py",
            "tests/unit/common/test_shell.py",
            "tests/unit/common/test_decision.py",
            "tests/unit/common/test_audit.py",
        ),
    ),
)


def area_of(path: Path) -> Area:
    """The one that a file is of."""
    return next(area for area in AREAS if area.covers(path))


def chosen(paths: Sequence[Path], count: int | None) -> list[Mutant]:
    """So many mutants of these files, all of them if no number is said: by chance, and always the same ones."""
    mutants = [mutant for path in sorted(files(paths)) for mutant in mutants_of(path)]
    return sorted(mutants, key=lambda mutant: mutant.rank)[:count]


def files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files of the areas that are among these paths, or all of them if there are none."""
    wanted = [path.resolve() for path in paths] or [ROOT]
    for area in AREAS:
        for code in area.code:
            place = ROOT / code
            for file in [place] if place.is_file() else sorted(place.rglob("*.py")):
                if any(file.is_relative_to(each) for each in wanted):
                    yield file


def tests_of(mutants: Iterable[Mutant]) -> list[str]:
    """The paths of the tests that these mutants need."""
    return [*dict.fromkeys(test for mutant in mutants for test in area_of(mutant.path).tests if (ROOT / test).exists())]

"""Mistakes that somebody could make, each one line of the real code written otherwise, to see whether the walks notice.

`python -m tests.unit.joint.mistakes` walks with each of them until it is found, and says after how many walks. With a name it
does so for that one, in this process: an import hook changes the line while its module is loaded.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).resolve().parents[3]
PAYMENT, PROVIDER, MONEY = (f"services.payments.domain.{each}" for each in ("payment", "provider", "money"))
SAGA, ORDER = "services.checkout.handlers", "services.checkout.domain.order"
MOST_WALKS = 1_600
"""As many as every build walks."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """This line of that module, as it is and as it should never be."""

    name: str
    module: str
    line: str
    changed: str

    @property
    def path(self) -> Path:
        return ROOT / Path(*self.module.split(".")).with_suffix(".py")

    def made(self, source: str) -> str:
        """The module with the mistake in it. Raises ValueError unless the line is there exactly once."""
        lines = source.split("\n")
        places = [index for index, line in enumerate(lines) if line.strip() == self.line]
        if len(places) != 1:
            raise ValueError(f"{self.name}: the line is in {self.module} {len(places)} times, not once: {self.line}")
        [place] = places
        lines[place] = lines[place].replace(self.line, self.changed)
        return "\n".join(lines)


MISTAKES: Mapping[str, Mistake] = {
    mistake.name: mistake
    for mistake in (
        Mistake(
            "a confirm follows a create that nobody wants any more",
            f"{PAYMENT}.payment",
            "return self.void_reason is not None and self.order_standing is not OrderStanding.CONFIRMED",
            "return False",
        ),
        Mistake(
            "a void is forgotten while a call is under way",
            f"{PAYMENT}.asking",
            "return _unwanted(replace(known, void_reason=without_sensitive(asked.reason)), now)",
            "return _unwanted(known, now)",
        ),
        Mistake(
            "a second try of a create is not read first",
            f"{PROVIDER}.concluding",
            "return not makes_it or operation.tries > 1 or (isinstance(outcome, Unknown) and outcome.stored)",
            "return not makes_it",
        ),
        Mistake(
            "a stored failure of a refund is believed at once",
            f"{PROVIDER}.concluding",
            "return operation.unknown_count >= SURE_AFTER",
            "return True",
        ),
        Mistake(
            "a key is sent again after the provider has forgotten it",
            f"{PROVIDER}.operation",
            "KEY_LIFETIME = timedelta(hours=20)",
            "KEY_LIFETIME = timedelta(hours=2_000)",
        ),
        Mistake(
            "a late answer counts",
            f"{PROVIDER}.operation",
            "return operation.state in OPEN and operation.tries == tries",
            "return operation.state in OPEN",
        ),
        Mistake(
            "a canceled capture passes for one that was made",
            f"{PROVIDER}.concluding",
            "return seen.status in ended and seen.amount_received_minor >= (operation.total_minor or 0)",
            "return seen.status in ended",
        ),
        Mistake(
            "a refund that failed late stays counted",
            f"{MONEY}.refund_recording",
            "refunded = amount * ((after.state is R.SUCCEEDED) - (before.state is R.SUCCEEDED))",
            "refunded = amount * (after.state is R.SUCCEEDED)",
        ),
        Mistake(
            "money taken for an order that is off is kept",
            f"{MONEY}.refund_asking",
            "if payment.state is not PaymentState.CAPTURED or payment.order_standing is not OrderStanding.CANCELED:",
            "if payment is not None:",
        ),
        Mistake(
            "a refund of a canceled order that failed is not made again",
            "services.payments.handlers.payments",
            "_return(world, message, return_for_canceled_order(payment, world.now))",
            "pass",
        ),
        Mistake(
            "an exchange is booked the wrong way round",
            f"{MONEY}.ledger",
            "first, second = (K.EXCHANGE_OUT, K.EXCHANGE_IN) if comes else (K.EXCHANGE_IN, K.EXCHANGE_OUT)",
            "first, second = (K.EXCHANGE_OUT, K.EXCHANGE_IN)",
        ),
        Mistake(
            "a fee is booked in the payment's currency",
            f"{MONEY}.ledger",
            "*fee(payment, taken.fee_minor or 0, taken.reference, taken.exchange.currency if taken.exchange else None),",
            "*fee(payment, taken.fee_minor or 0, taken.reference),",
        ),
        Mistake(
            "what a dispute gave back is never booked",
            f"{MONEY}.dispute",
            "(EntryKind.CHARGEBACK_RETURN, returned, None),",
            "(EntryKind.CHARGEBACK_RETURN, 0, None),",
        ),
        Mistake(
            "a word that was lost is not said again",
            f"{PAYMENT}.asking",
            "return Decision(known, (money_held(known),))",
            "return None",
        ),
        Mistake(
            "stock is not given back when payments holds nothing",
            f"{SAGA}.payments",
            "stock.release_all(world, checkout.allocations)",
            "pass",
        ),
        Mistake(
            "an order is off and its goods stay sold",
            f"{SAGA}.payments",
            "stock.restock_all(world, goods)",
            "pass",
        ),
        Mistake(
            "goods that left go on the shelf when their order is called off",
            ORDER,
            "return progress.shipped - progress.shelved_by_returns",
            "return 0",
        ),
        Mistake(
            "an order stands though its hold is gone",
            f"{SAGA}.payments",
            "if order.state is OrderState.CONFIRMED and not order.captured_minor:",
            "if order.captured_minor:",
        ),
        Mistake(
            "money is asked for at a price that rose",
            f"{SAGA}.checkouts",
            "if domain.quote.has_risen(frozen) and not checkout.accept_price_changes:",
            "if not frozen.lines:",
        ),
        Mistake(
            "money is asked for at a price that is over",
            f"{SAGA}.checkouts",
            "if frozen.prices_valid_until is not None and frozen.prices_valid_until <= world.now:",
            "if not frozen.lines:",
        ),
    )
}


class _Loader(SourceFileLoader):
    mistake: Mistake

    def get_code(self, _fullname: str) -> CodeType:
        """Never from a cache, which holds the module as it is."""
        return compile(self.mistake.made(self.mistake.path.read_text(encoding="utf-8")), self.path, "exec")


class _Finder(MetaPathFinder):
    def __init__(self, mistake: Mistake) -> None:
        self._mistake = mistake

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != self._mistake.module:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            loader = _Loader(fullname, str(self._mistake.path))
            loader.mistake = self._mistake
            spec.loader = loader
        return spec


def walks_until_found(name: str) -> int | None:
    """Walk in a process of its own with this mistake in it; None if no walk of a build finds it."""
    command = [sys.executable, "-m", "tests.unit.joint.mistakes", name]
    came_to = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    count = int(came_to.stdout.rsplit(maxsplit=1)[-1])
    return count or None


def _walk(mistake: Mistake) -> int:
    """The number of the walk that found it, or 0."""
    sys.meta_path.insert(0, _Finder(mistake))
    walk = import_module("tests.unit.joint.walking").walk
    for seed in range(MOST_WALKS):
        try:
            walk(seed)
        except AssertionError:
            return seed + 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(_walk(MISTAKES[sys.argv[1]]))
    else:
        for each in MISTAKES:
            print(f"| {each} | {walks_until_found(each) or 'not found'} |", flush=True)

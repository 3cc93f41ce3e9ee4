"""What so many of one line of an order cost, so that all refunds of a line give back exactly what was paid for it.

It is counted in steps, the smallest amounts that the provider moves. The goods of a line differ in price by one step at most:
some are large and the others small, and together they cost what the line does. A refund takes so many of each and, should
it fail, leaves the same; so whatever failed in between, as many of each are left as there should be.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from libs.common.money import spread, step_minor
from services.checkout.domain.order import Order


@dataclass(frozen=True, slots=True)
class Worth:
    """What a line cost, and what of it is refunded or being refunded."""

    step: int
    steps: int
    """What the whole line cost."""
    quantity: int
    refunded: int
    refunded_minor: int | None

    @property
    def gone_minor(self) -> int:
        """What those cost that are refunded; their even part, where that was not written down."""
        even_minor = self.steps * self.refunded // self.quantity * self.step
        return even_minor if self.refunded_minor is None else self.refunded_minor

    def of(self, count: int) -> int:
        """What so many more cost in minor units: as near to their even part as those that were refunded before leave it."""
        small_price, large_count = divmod(self.steps, self.quantity)
        after, large_gone = self.refunded + count, self._large_gone
        large = self.steps * after // self.quantity - small_price * after - large_gone
        most = min(count, large_count - large_gone)
        least = 0 if small_price else min(most, 1)  # else nothing could be given back for these, whenever it is asked
        return (small_price * count + min(max(large, least), most)) * self.step

    @property
    def _large_gone(self) -> int:
        small_price, large_count = divmod(self.steps, self.quantity)
        large = self.gone_minor // self.step - small_price * self.refunded
        return min(max(large, self.refunded - (self.quantity - large_count), 0), self.refunded, large_count)


def worths(order: Order) -> Mapping[str, Worth]:
    """By line. With the shipping, all lines add up to what the order cost."""
    step, paid = step_minor(order.currency), [order.paid_minor(line) for line in order.lines]
    rest = order.total_minor - sum(paid)
    steps = [amount // step for amount in paid]
    if step > 1 and rest >= 0:
        steps = spread([Fraction(amount, step) for amount in (*paid, rest)], order.total_minor // step)
    found: dict[str, Worth] = {}
    for line, whole in zip(order.lines, steps, strict=False):
        known = order.progress_of(line.line_id)
        found[line.line_id] = Worth(step, whole, line.quantity, known.refunded, known.refunded_minor)
    return found

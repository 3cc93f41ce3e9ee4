"""What is known of one tenant's business, from published facts alone: topics, the provider's lists, and two open books."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Protocol
from uuid import UUID


@dataclass(slots=True)
class Checkout:
    """One attempt to buy a cart."""

    requested_at: datetime | None = None
    goods: dict[str, int] = field(default_factory=dict)
    """So many of each SKU, once the cart has frozen."""
    asked_at: datetime | None = None
    """When payments was asked for the money."""
    on_shipment: bool = False
    ended_at: datetime | None = None
    """Without an order."""


@dataclass(slots=True)
class Order:
    """One order."""

    number: int
    checkout_id: UUID
    payment_id: UUID
    total_minor: int
    currency: str
    placed_at: datetime
    goods: dict[str, tuple[str, int]]
    """SKU and quantity by line."""


@dataclass(slots=True)
class AfterOrder:
    """What became of an order. It may be heard of before the order is."""

    canceled_at: datetime | None = None
    shipments: dict[str, dict[str, int]] = field(default_factory=dict)
    """So many of each line, by shipment."""
    first_shipped_at: datetime | None = None
    returns: dict[str, dict[str, int]] = field(default_factory=dict)
    """So many of each line that may be sold again, by return."""
    refunds: dict[UUID, tuple[dict[str, int], bool | None]] = field(default_factory=dict)
    """So many of each line, and whether they went back on the shelf; None: not told."""
    failed_refunds: set[UUID] = field(default_factory=set)
    """Those whose money came back after all. Goods on the shelf for one stay there, and the next puts none beside them."""


@dataclass(slots=True)
class Payment:
    """What payments says of one payment."""

    checkout_id: UUID
    unknown_at: datetime | None = None
    heard_at: datetime | None = None
    """When something certain was last said."""
    captured_minor: int = 0


@dataclass(slots=True)
class Refund:
    """What was said of one refund."""

    asked_at: datetime
    payment_id: UUID
    amount_minor: int
    succeeded_at: datetime | None = None
    failed_at: datetime | None = None
    is_unasked: bool = False
    """Given back of itself, as the money of no order."""

    @property
    def is_over(self) -> bool:
        """Whether it is known what came of it."""
        return self.succeeded_at is not None or self.failed_at is not None

    @property
    def is_given(self) -> bool:
        """Whether the buyer has it: a refund may fail after it had succeeded."""
        return self.succeeded_at is not None and (self.failed_at is None or self.failed_at < self.succeeded_at)


@dataclass(frozen=True, slots=True)
class Inventory:
    """One fact about a product's stock."""

    at: datetime
    location: str
    quantity: int
    is_count: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Charge:
    """One payment on the provider's own list."""

    id: str
    checkout_id: UUID | None
    payment_id: UUID | None
    status: str
    captured_minor: int
    refunded_minor: int
    """What the buyer has back."""
    returning_minor: int = 0
    """What is on its way to the buyer."""
    currency: str
    created_at: datetime

    @property
    def holds_money(self) -> bool:
        """Whether any of the buyer's money is held, or was taken and not given back."""
        return (
            self.status in {"requires_capture", "processing"} or self.captured_minor > self.refunded_minor + self.returning_minor
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """A product's stock as checkout publishes it."""

    on_hand: int
    reserved: int
    sold: int
    backordered: int
    is_tracked: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """One account of the ledger as payments publishes it."""

    code: str
    currency: str
    debited_minor: int
    credited_minor: int


@dataclass(slots=True)
class Published:
    """What the topics say of some of a tenant's purchases, or of all."""

    checkouts: dict[UUID, Checkout] = field(default_factory=dict)
    orders: dict[UUID, Order] = field(default_factory=dict)
    after: dict[UUID, AfterOrder] = field(default_factory=dict)
    payments: dict[UUID, Payment] = field(default_factory=dict)
    refunds: dict[UUID, Refund] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """All that is known of some purchases, each of them whole."""

    tenant: str
    at: datetime
    published: Published
    charges: Sequence[Charge] | None
    """None: the tenant's account at the provider is its own, and only it can list what is there."""
    is_whole: bool = True
    """Whether the topics reach back to the beginning. If not, only what began within them is judged."""


class Noted(Protocol):
    """What was noted of one tenant's purchases, which may be more than memory holds: read a part at a time."""

    def pages(self) -> Iterator[tuple[Published, list[Charge]]]:
        """Every purchase once, with all that was said of it."""

    def numbers(self) -> Iterator[tuple[int, int]]:
        """The numbers of all orders, rising, and how many orders have each."""

    def inventory(self, sku: str) -> Iterator[tuple[int, Inventory]]:
        """What was said of a product's stock, by rising sequence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Books:
    """Everything that is known of a tenant at one moment."""

    tenant: str
    at: datetime
    noted: Noted
    is_listed: bool = True
    """Whether the provider shows us what it has of the tenant: an account of its own may be open to nobody else."""
    provider_net_minor: Mapping[str, int]
    """What the provider owes this tenant before its fees, by currency."""
    stock: Mapping[str, Level]
    accounts: Sequence[Account]
    is_whole: bool = True

    def pages(self) -> Iterator[Facts]:
        """What is known of its purchases, a part of them at a time."""
        for published, charges in self.noted.pages():
            yield Facts(
                tenant=self.tenant,
                at=self.at,
                published=published,
                charges=charges if self.is_listed else None,
                is_whole=self.is_whole,
            )

    def together(self) -> Facts:
        """All of it at once, which takes memory for every purchase."""
        everything, charges = Published(), list[Charge]()
        for facts in self.pages():
            for each in fields(Published):
                getattr(everything, each.name).update(getattr(facts.published, each.name))
            charges += facts.charges or ()
        listed = charges if self.is_listed else None
        return Facts(tenant=self.tenant, at=self.at, published=everything, charges=listed, is_whole=self.is_whole)

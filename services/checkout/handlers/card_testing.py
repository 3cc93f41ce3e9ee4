"""Card testing: who may put a card to its issuer, and what is counted of the refused ones."""

from collections.abc import Iterable
from typing import Final
from uuid import UUID

import structlog

from libs.common.decision import Ref, World
from libs.common.telemetry import Counter
from libs.common.tenancy import Tenant
from services.checkout.domain import card_testing
from services.checkout.domain.card_testing import Bounds, By, Declines, Payer, TooManyDeclinesError
from services.checkout.domain.saga import Checkout

REFUSED: Final = Counter(
    "cartwright_card_testing_refused_total",
    "Payments refused before the provider was asked, because too many cards had been, by whose number it was",
    ["by"],
)
CHALLENGED: Final = Counter(
    "cartwright_card_testing_challenged_total", "Payments for which proof was asked for, because cards had been refused lately"
)
SUSPECTED: Final = Counter(
    "cartwright_card_testing_suspected_total",
    "Times that as many cards were refused as there may be, by whose number it was",
    ["by"],
)

log = structlog.get_logger(__name__)


def to_try(payer: Payer | None) -> list[Ref]:
    """What tells whether this payer may try a card: to look at, for nobody is counted for trying."""
    if payer is None:
        return []
    return [Ref(Declines, each, shared=True) for each in (payer.subject, payer.origin, card_testing.shop_of(payer.tenant_id))]


def demand_may_try(world: World, payer: Payer | None) -> None:
    """Raises TooManyDeclinesError, with the seconds to wait."""
    if payer is None:
        return
    own, from_there, in_shop = (world.get(Declines, ref.key) for ref in to_try(payer))
    try:
        card_testing.demand_may_try(payer, own, from_there, in_shop, _bounds(world), world.now)
    except TooManyDeclinesError as error:
        REFUSED.labels(error.by).inc()
        raise


def is_challenged(world: World, payer: Payer | None) -> bool:
    """Whether their issuer is to ask them for proof."""
    if payer is None:
        return False
    own, from_there, in_shop = (world.get(Declines, ref.key) for ref in to_try(payer))
    challenged = card_testing.is_challenged(payer, own, from_there, in_shop, _bounds(world), world.now)
    if challenged:
        CHALLENGED.inc()
    return challenged


def is_watched(world: World, payer: Payer | None) -> bool:
    """Whether cards of theirs, or from where they are, were refused lately: then a payment that is held takes one back."""
    counts = [] if payer is None else [world.get(Declines, key) for key in (payer.subject, payer.origin)]
    return any(each is not None and each.count(world.now, card_testing.LONGEST_WINDOW_SECONDS) for each in counts)


def counted_for(checkout: Checkout | None) -> list[Ref]:
    """Where it is counted what becomes of this checkout's card."""
    if checkout is None:
        return []
    return [*_of_payer(checkout), Ref(Declines, card_testing.shop_of(checkout.tenant_id))]


def taken_back_for(checkout: Checkout | None) -> list[Ref]:
    """Where a payment that is held takes one back: nowhere, for nearly all."""
    return _of_payer(checkout) if checkout is not None and checkout.is_watched else []


def _of_payer(checkout: Checkout) -> list[Ref]:
    own = card_testing.suspect(checkout.tenant_id, "subject", str(checkout.subject_id))
    return [Ref(Declines, key) for key in (own, checkout.origin) if key is not None]


def note_declined(world: World, checkout: Checkout) -> None:
    """A card was refused."""
    bounds = _bounds(world)
    for by, ref in _by(checkout, counted_for(checkout)):
        counts = world.get(Declines, ref.key) or Declines(tenant_id=world.tenant_id, id=ref.key, by=by, last_at=world.now)
        changed, suspected = card_testing.declined(counts, bounds, checkout.subject_id, world.now)
        world.save(changed, *([suspected] if suspected else []))
        if suspected:
            SUSPECTED.labels(by).inc()
            log.warning(
                "card_testing.suspected",
                by=by,
                suspect_id=str(ref.key),
                declined_count=suspected.declined_count,
                action="guests' bounds are stricter meanwhile" if by == "tenant" else "no card of theirs is tried meanwhile",
            )


def note_held(world: World, checkout: Checkout) -> None:
    """A card was good."""
    for ref in taken_back_for(checkout):
        counts = world.get(Declines, ref.key)
        fewer = card_testing.held(counts, world.now) if counts else None
        if fewer:
            world.save(fewer)


def _by(checkout: Checkout, refs: Iterable[Ref]) -> Iterable[tuple[By, Ref]]:
    known: dict[UUID | None, By] = {checkout.origin: "address", card_testing.shop_of(checkout.tenant_id): "tenant"}
    return [(known.get(ref.key, "subject"), ref) for ref in refs]


def _bounds(world: World) -> Bounds:
    tenant = world.get(Tenant, world.tenant_id)
    chosen = (tenant.settings.get("card_testing") if tenant else None) or {}
    known = {name: value for name, value in chosen.items() if name in Bounds.__slots__}
    return Bounds(**known)

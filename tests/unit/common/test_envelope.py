import re
import typing
import unicodedata
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common import contracts
from libs.common.clock import PLATFORM
from libs.common.contracts import EVENTS, EXTERNAL_TOPICS, OTHERS, Event, KeptSku, external, fulfilment
from libs.common.contracts.cart import CartReopened, PromotionCode
from libs.common.contracts.catalog import PriceChanged, ProductPublished
from libs.common.contracts.currencies import KNOWN_CURRENCIES
from libs.common.messaging.envelope import IGNORED, MAX_EVENT_BYTES, EventTooLargeError, Invalid, Reader, Received
from tests.shared.records import NOW, TENANT, Record, changed, written

LANGUAGE = sorted(
    {
        declared
        for path in Path(contracts.__file__).parent.glob("*.py")
        for declared in vars(import_module(f"libs.common.contracts.{path.stem}")).values()
        if isinstance(declared, type) and issubclass(declared, Event) and declared is not Event
    },
    key=lambda declared: (declared.TOPIC, declared.TYPE),
)
"""Every event class, found by looking and not by asking the registry."""

SEQUENCES = st.integers(1, 2**53 - 1)
st.register_type_strategy(datetime, st.datetimes(timezones=st.just(UTC)))
JSON = st.recursive(st.booleans() | st.integers(-(2**53), 2**53) | st.text(), lambda inner: st.dictionaries(st.text(), inner))


def test_the_registry_has_every_event_and_no_two_of_one_name() -> None:
    assert len(LANGUAGE) > 15
    assert {EVENTS[each.TOPIC, each.TYPE, each.VERSION] for each in LANGUAGE} == set(LANGUAGE)
    for each in LANGUAGE:
        assert each.AGGREGATE in {field.name for field in fields(typing.cast("Any", each))}
        assert re.fullmatch(r"[a-z-]+\.[a-z-]+", each.TYPE)
        assert re.fullmatch(r"[a-z-]+\.v\d+", each.TOPIC)


def test_every_event_of_the_language_has_one_publisher() -> None:
    ours = {"cart", "checkout", "payments", "identity"}
    for each in LANGUAGE:
        assert (each.PUBLISHER == OTHERS) == (each.TOPIC in EXTERNAL_TOPICS)
        assert each.PUBLISHER == OTHERS or each.PUBLISHER in ours
    assert {each.PUBLISHER for each in LANGUAGE} == {*ours, OTHERS}


LINES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=64)
MARKED: dict[Any, st.SearchStrategy[Any]] = {
    KeptSku: LINES,
    PromotionCode: LINES,
    external.Sku: LINES.map(partial(unicodedata.normalize, "NFC")).filter(external.is_sku),
    external.Line: LINES,
    external.Name: LINES,
    external.Currency: st.sampled_from(sorted(KNOWN_CURRENCIES)),
    external.Moment | None: st.none() | st.integers(0, 7_000_000_000).map(partial(datetime.fromtimestamp, tz=UTC)),
    fulfilment.Lines: st.lists(
        st.builds(fulfilment.FulfilmentLine, line_id=LINES, quantity=st.integers(1, 1_000_000)), min_size=1, max_size=9
    ).map(tuple),
}
"""What is marked says more than its type does."""


def _strategy(event: type[Event]) -> st.SearchStrategy[Any]:
    """Any event of this class, from its own annotations."""
    hints = typing.get_type_hints(event, include_extras=True)
    known = {name: MARKED[hint] for name, hint in hints.items() if hint in MARKED}
    if "settings" in hints:
        known["settings"] = st.dictionaries(st.text(), JSON)
    if event.AGGREGATE == "tenant_id":
        known["tenant_id"] = st.just(TENANT)
    if event.AGGREGATE in {"kid", "id"}:
        known[event.AGGREGATE] = LINES  # it is a header, too
    return st.builds(event, **known)


@pytest.mark.parametrize("event", LANGUAGE, ids=lambda event: f"{event.TOPIC}/{event.TYPE}")
def test_what_is_written_is_read_back_equal(event: type[Event]) -> None:
    @given(_strategy(event), SEQUENCES)
    @settings(max_examples=30, deadline=None)
    def read_back(data: Any, sequence: int) -> None:
        record = written(data, sequence=sequence, prefix="p_", traceparent="00-1-2-01")
        found = Reader([event], topic_prefix="p_").read(record)
        assert isinstance(found, Received), found
        message = found.message
        assert message.data == data
        assert (message.tenant_id, message.sequence, message.time) == (TENANT, sequence, NOW)
        assert message.source == dict(record.headers)["ce_source"].decode()
        assert (message.actor, message.traceparent) == ("someone", "00-1-2-01")
        assert message.correlation_id == str(getattr(data, "checkout_id", "request"))
        assert (found.origin, found.position) == ((event.PUBLISHER, (1, 22, 333)) if event.PUBLISHER else ("", None))
        headers = dict(record.headers)
        assert headers["ce_causationid"] == b"cause"
        assert headers["ce_dataschema"] == f"urn:cartwright:schema:{event.TYPE}:{event.VERSION}".encode()
        assert headers["ce_partitionkey"] == record.key
        assert UUID(message.id).version == 7

    read_back()


PRICE = PriceChanged(sku="tea", currency="GBP", unit_minor=250)
GOOD = written(PRICE)
READER = Reader([PriceChanged])


def test_a_foreign_publisher_needs_few_headers() -> None:
    owed = {"ce_id", "ce_source", "ce_type", "ce_tenantid", "ce_sequence", "ce_time"}
    bare = replace(GOOD, headers=[header for header in GOOD.headers if header[0] in owed])
    assert isinstance(READER.read(bare), Received)
    for name in owed:
        without = replace(bare, headers=[header for header in bare.headers if header[0] != name])
        found_invalid = READER.read(without)
        assert isinstance(found_invalid, Invalid)
        assert found_invalid.reason == "malformed"


def typed(content_type: bytes) -> Record:
    """The record as something else."""
    return replace(GOOD, headers=list({**dict(GOOD.headers), "content-type": content_type}.items()))


REJECTED: list[tuple[str, Record]] = [
    ("malformed", changed(GOOD, ce_type=None)),
    ("malformed", changed(GOOD, ce_id=None)),
    ("malformed", changed(GOOD, ce_sequence=b"one")),
    ("malformed", changed(GOOD, ce_sequence=b"0")),
    ("malformed", changed(GOOD, ce_sequence=b"-1")),
    ("malformed", changed(GOOD, ce_sequence=str(2**53).encode())),
    ("malformed", changed(GOOD, ce_sequence=b"9" * 400)),
    ("malformed", changed(GOOD, ce_sequence=b" 1")),
    ("malformed", changed(GOOD, ce_sequence=b"1_0")),
    ("malformed", changed(GOOD, ce_sequence=b"007")),
    ("malformed", changed(GOOD, ce_sequence="\u0661".encode())),
    ("malformed", changed(GOOD, ce_id=b"")),
    ("malformed", changed(GOOD, ce_id=b"x" * 257)),
    ("malformed", changed(GOOD, ce_id=b"a\0b")),
    ("malformed", changed(GOOD, ce_source=b"")),
    ("malformed", changed(GOOD, ce_source=b"/" + b"x" * 1_024)),
    ("malformed", changed(GOOD, ce_source=b"/a\nb")),
    ("malformed", changed(GOOD, ce_subject="a\u0085".encode())),
    ("malformed", changed(GOOD, ce_actor=b"x" * 257)),
    ("malformed", changed(GOOD, other=b"x" * 20_000)),
    ("malformed", changed(GOOD, other=b"\0")),
    ("malformed", changed(GOOD, ce_specversion=b"0.3")),
    ("malformed", replace(GOOD, headers=[*GOOD.headers, ("ce_id", b"another")])),
    ("malformed", replace(GOOD, headers=[*GOOD.headers, ("other", None)])),
    ("malformed", changed(GOOD, ce_tenantid=b"me")),
    ("malformed", changed(GOOD, ce_tenantid=TENANT.hex.encode())),
    ("malformed", changed(GOOD, ce_tenantid=f"{{{TENANT}}}".encode())),
    ("malformed", changed(GOOD, ce_time=b"2026-01-01")),
    ("malformed", changed(GOOD, ce_time=b"2026-W01-1T00:00:00Z")),
    ("malformed", changed(GOOD, ce_time=b"0001-01-01T00:00:00+14:00")),
    ("malformed", changed(GOOD, ce_time=b"9999-12-31T23:59:59-12:00")),
    ("malformed", changed(GOOD, ce_time=b"2026-02-30T00:00:00Z")),
    ("malformed", changed(GOOD, ce_time=b"1767225600")),
    ("malformed", changed(GOOD, ce_dataschema=b"urn:cartwright:schema:price.changed:" + b"9" * 5_000)),
    ("malformed", changed(GOOD, ce_dataschema=b"https://example.test/price/1")),
    ("malformed", changed(GOOD, ce_relayposition=b"cart/1.2.9999999999999999999")),
    ("malformed", changed(GOOD, ce_relayposition=b"cart/-1.2.3")),
    ("malformed", changed(GOOD, ce_relayposition=b"c" * 65 + b"/1.2.3")),
    ("content-type", typed(b"application/avro")),
    ("content-type", typed(b"text/plain; charset=utf-8")),
    ("structured-mode", typed(b"application/cloudevents+json; charset=UTF-8")),
    ("structured-mode", replace(GOOD, headers=[("content-type", b"application/cloudevents+json")])),
    ("malformed", changed(GOOD, ce_time=b"yesterday")),
    ("malformed", changed(GOOD, ce_time=b"2026-01-01T00:00:00")),  # no zone: nobody knows when that is
    ("malformed", changed(GOOD, ce_dataschema=b"urn:cartwright:schema:price.changed:one")),
    ("malformed", changed(GOOD, ce_relayposition=b"cart/1.2")),
    ("undecodable-header", changed(GOOD, ce_actor=b"\xff")),
    ("undecodable-header", replace(GOOD, key=b"\xff\xfe")),
    ("unknown-version", changed(GOOD, ce_dataschema=b"urn:cartwright:schema:price.changed:2")),
    ("schema", replace(GOOD, value=None)),
    ("schema", replace(GOOD, value=b"not json")),
    ("schema", replace(GOOD, value=b"[]")),
    ("schema", replace(GOOD, value=b'{"sku":"tea","currency":"GBP"}')),
    ("schema", replace(GOOD, value=b'{"sku":"tea","currency":"GBP","unit_minor":-1}')),
    ("schema", replace(GOOD, value=b'{"sku":"tea","currency":"POUND","unit_minor":1}')),
    ("schema", replace(GOOD, value=b'{"sku":"","currency":"GBP","unit_minor":1}')),
    ("schema", replace(GOOD, value=b'{"sku":"tea","currency":"GBP","unit_minor":1.5}')),
    ("schema", replace(GOOD, value=b'{"sku":"tea","currency":"GBP","unit_minor":9000000000000001}')),
    ("tenant-mismatch", replace(GOOD, key=None)),
    ("tenant-mismatch", replace(GOOD, key=b"tea")),
    ("tenant-mismatch", replace(GOOD, key=f"{UUID(int=0xB)}:tea".encode())),
    ("tenant-mismatch", changed(GOOD, ce_tenantid=str(UUID(int=0xB)).encode())),
    ("tenant-mismatch", changed(GOOD, ce_tenantid=str(PLATFORM).encode())),
    ("tenant-mismatch", changed(replace(GOOD, key=b"tea"), ce_tenantid=str(PLATFORM).encode(), ce_partitionkey=b"tea")),
    ("tenant-mismatch", replace(GOOD, key=f"{TENANT}:gin".encode())),
    ("tenant-mismatch", replace(GOOD, key=f"{TENANT}:TEA".encode())),
    ("tenant-mismatch", changed(replace(GOOD, key=f"{TENANT}:gin".encode()), ce_subject=b"gin", ce_partitionkey=None)),
    ("tenant-mismatch", changed(GOOD, ce_subject=b"gin")),
    ("tenant-mismatch", changed(GOOD, ce_subject=b"TEA")),
    ("tenant-mismatch", changed(GOOD, ce_subject=b"")),
    ("tenant-mismatch", changed(GOOD, ce_partitionkey=f"{TENANT}:gin".encode())),
    ("tenant-mismatch", changed(GOOD, ce_partitionkey=b"tea")),
    ("foreign-source", changed(GOOD, ce_source=b"/cartwright/cart")),
    ("foreign-source", changed(GOOD, ce_source=b"/Cartwright/catalogue")),
    ("foreign-source", changed(GOOD, ce_relayposition=b"cart/1.22.333")),
    ("foreign-source", changed(GOOD, ce_relayposition=b"")),
]


@pytest.mark.parametrize(("reason", "record"), REJECTED)
def test_what_cannot_be_used_is_rejected_by_its_reason(reason: str, record: Record) -> None:
    found = READER.read(record)
    assert isinstance(found, Invalid)
    assert found.reason == reason
    assert found.record is record
    assert found.detail


def test_an_event_that_nobody_here_reacts_to_is_no_concern_and_an_added_optional_field_no_harm() -> None:
    assert READER.read(written(ProductPublished(sku="tea", name="Tea", category=""))) is None
    assert isinstance(READER.read(replace(GOOD, value=(GOOD.value or b"")[:-1] + b',"later":"addition"}')), Received)


@pytest.mark.parametrize(
    "content_type", [b"application/json; charset=utf-8", b"application/vnd.shop.price+json", b"APPLICATION/JSON"]
)
def test_others_may_call_json_what_they_call_it_and_write_times_with_any_offset(content_type: bytes) -> None:
    theirs = changed(typed(content_type), ce_time=b"2026-01-01t13:30:00.123456789+01:00", ce_dataschema=None)
    found = READER.read(theirs)
    assert isinstance(found, Received)
    assert found.message.time == NOW.replace(microsecond=123_456)
    longest = changed(GOOD, ce_id=b"x" * 256, ce_source=b"/" + "ä".encode() * 1_023, ce_sequence=str(2**53 - 1).encode())
    assert isinstance(READER.read(longest), Received)


def test_what_a_stranger_puts_on_our_own_topics_is_refused_and_breaks_nothing() -> None:
    mine = written(CartReopened(cart_id=UUID(int=1), checkout_id=UUID(int=2)))
    reader = Reader([CartReopened])
    for record in (
        replace(mine, value=b'{"cart_id":"00000000-0000-0000-0000-000000000001","checkout_id":"\\ud800"}'),
        replace(mine, value=b"[" * 100_000),
        replace(mine, value=b'{"cart_id":1e400}'),
        changed(mine, ce_time=b"9999-12-31T23:59:59-12:00"),
        changed(mine, ce_actor=b"a\0"),
        changed(mine, ce_sequence=b"1e3"),
        changed(mine, ce_relayposition=b"cart/1.2." + b"9" * 30),
    ):
        assert isinstance(reader.read(record), Invalid)


NAMES = st.sampled_from([name for name, _ in GOOD.headers] + ["ce_relayposition", "other"])
NOISE = st.none() | st.binary(max_size=40) | st.sampled_from([value for _, value in GOOD.headers])


@given(st.dictionaries(NAMES, NOISE), NOISE, st.none() | st.binary() | JSON.map(orjson.dumps))
@settings(max_examples=100, deadline=None)
def test_reading_survives_whatever_a_record_holds(noise: dict[str, bytes | None], key: bytes | None, value: bytes | None) -> None:
    # A header may also be there with no value at all.
    for headers in (noise, {**dict(GOOD.headers), **noise}):
        for record in (Record("catalog.v1", key, value, list(headers.items())), replace(GOOD, headers=list(headers.items()))):
            assert isinstance(READER.read(record), Received | Invalid | None)


def test_an_event_too_large_for_the_broker_is_refused_before_it_is_written() -> None:
    with pytest.raises(EventTooLargeError, match=r"has \d+ bytes; the limit is 900000"):
        written(ProductPublished(sku="tea", name="x" * MAX_EVENT_BYTES, category=""))


FORBIDDEN = re.compile(
    r"mail|address|phone|secret|password|token|card|\bpan\b|cvc|iban|birth|street|city|postal|postcode|next_action|"
    r"(first|last|full|given|family|shopper|customer|buyer)_?name",
    re.IGNORECASE,
)
NAMES_OF_THINGS = {"ProductPublished.name", "FrozenLine.name", "OrderLine.name", "PromotionChanged.name"}
FREE_FORM = {"TenantUpdated.settings", "SigningKeyUpdated.jwk"}
"""The only members whose own members no class names; identity's tests look into both."""


def _members(kind: Any) -> Iterator[tuple[str, Any]]:
    """Every member of a class and of the classes in it, by `Class.name`."""
    if isinstance(kind, type) and is_dataclass(kind):
        for name, hint in typing.get_type_hints(kind).items():
            if name in {field.name for field in fields(kind)}:
                yield f"{kind.__name__}.{name}", hint
                yield from _members(hint)
    for inner in typing.get_args(kind):
        yield from _members(inner)


def test_no_event_has_a_place_for_a_secret_or_for_who_somebody_is() -> None:
    members = {name: hint for event in LANGUAGE for name, hint in _members(event)}
    assert len(members) > 60
    assert [name for name in members if FORBIDDEN.search(name.partition(".")[2])] == []
    assert {name for name in members if name.endswith(".name")} == NAMES_OF_THINGS
    assert {name for name, hint in members.items() if hint is Any or typing.get_origin(hint) is dict} == FREE_FORM


@pytest.mark.parametrize("record", [changed(GOOD, ce_type=b"price.invented"), replace(GOOD, topic="cart.v1")])
def test_a_type_that_nobody_knows_is_counted_and_passed_over(record: Record) -> None:
    before = IGNORED.labels(record.topic)._value.get()
    assert READER.read(record) is None
    assert IGNORED.labels(record.topic)._value.get() == before + 1

"""Stripe's webhooks: is it Stripe who says so, and what does it say. No SDK, so that an API process need not load it.

The signature is checked over the raw body before anything is parsed. The SDK's own check would do, but for accepting
times in the future; and this one tells a wrong signature from a wrong time.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

import orjson

from libs.common.clock import NIL
from libs.common.errors import MalformedError
from libs.common.sensitive import is_sensitive
from services.payments.domain.provider.webhook import TOLERANCE, Notice, Subject
from services.payments.gateway.reading import INTENT_STATUSES, REFUND_STATUSES

MAX_BYTES = 256_000
MAX_SIGNATURES = 16
"""In one header; Stripe sends one for each secret that is live."""
_SUBJECTS = MappingProxyType({"payment_intent": Subject.INTENT, "refund": Subject.REFUND, "dispute": Subject.DISPUTE})


def verify(body: bytes, header: str | None, secrets: Sequence[str], now: datetime) -> None:
    """Raise MalformedError unless one of these secrets signed exactly this body, about now."""
    if not header:
        raise MalformedError("signature-missing", "there is no Stripe-Signature header")
    signed_at, signatures = _parts(header)
    if signed_at is None or not signatures:
        raise MalformedError("bad-signature", "the Stripe-Signature header cannot be read")
    signed = b"%d.%b" % (signed_at, body)
    wanted = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode() for secret in secrets]
    if not any(hmac.compare_digest(mine, theirs) for mine in wanted for theirs in signatures):
        raise MalformedError("bad-signature", "no secret that counts here made this signature for this body")
    if abs(now.timestamp() - signed_at) > TOLERANCE.total_seconds():
        seconds = int(TOLERANCE.total_seconds())
        raise MalformedError("bad-time", f"it was signed more than {seconds} seconds from now, before or after")


def _parts(header: str) -> tuple[int | None, list[bytes]]:
    signed_at: int | None = None
    signatures: list[bytes] = []
    for item in header.split(","):
        name, _, value = item.strip().partition("=")
        if name == "t" and value.isascii() and value.isdecimal() and len(value) <= 12:
            signed_at = int(value)
        elif name == "v1" and len(signatures) < MAX_SIGNATURES:
            signatures.append(value.encode())
    return signed_at, signatures


def read_notice(body: bytes) -> Notice:
    """What a verified event says, as far as we need it. Raises MalformedError for what is no event."""
    try:
        event = orjson.loads(body)
        thing = (event.get("data") or {}).get("object") or {}
        return _notice(event, thing)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, OverflowError) as error:
        raise MalformedError("not-an-event", f"it is signed, but no event that can be read: {type(error).__name__}") from error


def _notice(event: Mapping[str, Any], thing: Mapping[str, Any]) -> Notice:
    subject = _SUBJECTS.get(thing.get("object", ""), Subject.OTHER)
    metadata = thing.get("metadata") or {}
    object_id = _short(thing.get("id")) or ""
    return Notice(
        id=_demanded(event["id"]),
        type=_demanded(event["type"]),
        subject=subject,
        object_id=object_id,
        intent_id=object_id if subject is Subject.INTENT else _short(thing.get("payment_intent")),
        payment_id=_uuid(metadata.get("payment_id")),
        status=_status(subject, thing),
        amount_minor=int(thing["amount_received"]) if subject is Subject.INTENT else None,
        livemode=event["livemode"] is True,
        account=_short(event.get("account")),
        occurred_at=_moment(event["created"]),
        tenant_id=_tenant(metadata.get("tenant_id")),
    )


def _status(subject: Subject, thing: Mapping[str, Any]) -> str | None:
    """How the object stood, if that is a word we know: anything else is to be read."""
    match subject:
        case Subject.INTENT:
            return INTENT_STATUSES.get(thing["status"])
        case Subject.REFUND:
            return REFUND_STATUSES.get(thing["status"])
        case Subject.DISPUTE | Subject.OTHER:
            return None


def _short(value: object) -> str | None:
    """Text of a bounded length, or nothing; an expanded object counts by its id."""
    if isinstance(value, Mapping):
        value = value.get("id")
    if value is None:
        return None
    return _demanded(value)


def _demanded(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 255 or "\0" in value:
        message = "a member is no text of 1 to 255 characters"
        raise ValueError(message)
    if is_sensitive(value):
        message = "a member that is to be kept is a card number or a secret"
        raise ValueError(message)
    return value


def _tenant(value: object) -> UUID | None:
    """Whose an object is by its metadata, which on a shared account may be another program's and say anything."""
    return None if value is None else _uuid(value) or NIL


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _moment(seconds: object) -> datetime:
    """A time in whole seconds, or of the newer events in text."""
    if isinstance(seconds, str):
        return datetime.fromisoformat(seconds)
    return datetime.fromtimestamp(int(str(seconds)), UTC)

"""Second factors as this process works with them: secrets sealed and opened, codes judged, and what an app scans."""

import base64
import hmac
import io
import os
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote, urlencode
from uuid import UUID

import segno

from libs.common.clock import new_id
from libs.common.sealing import DataKey
from services.identity.domain.member import Member
from services.identity.domain.second_factor import (
    DIGITS,
    RECOVERY_CODES,
    SECRET_BYTES,
    STEP_SECONDS,
    SecondFactor,
    Shown,
    digest_of,
    matching_step,
)

COLUMN = "secret"
LABEL_LENGTH = 40
"""So much of a tenant's name is in what an app scans: a QR code holds no more of long names in all alphabets."""
RECOVERY_BYTES, GROUP = 10, 4
TICKET_LIFETIME = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """A new secret, for its owner's eyes, and as it may be kept."""

    id: UUID
    secret: str
    """Base32, as apps take it by hand."""
    uri: str
    sealed: bytes


class Factors:
    """`secret` is what this service derives from; whoever knows it can read every sealed secret, and nobody else can."""

    def __init__(self, secret: bytes) -> None:
        self._seals = hmac.digest(secret, b"cartwright second factors 1", "sha256")
        self._tickets = hmac.digest(secret, b"cartwright sign-in tickets 1", "sha256")

    def new(self, member: Member, tenant: str) -> Enrolment:
        """A secret that nobody has seen yet."""
        enrolment = new_id()
        secret = base64.b32encode(os.urandom(SECRET_BYTES)).decode()
        sealed = self._key(member.tenant_id, member.id, enrolment).seal(secret, COLUMN)
        return Enrolment(id=enrolment, secret=secret, uri=uri_of(secret, member.email, tenant), sealed=sealed)

    def secret_of(self, factor: SecondFactor) -> str:
        """The secret of one that has any. Raises SealError where it was sealed with another key, or for another row."""
        return self._key(factor.tenant_id, factor.member_id, factor.enrolment).open(factor.sealed_secret or b"", COLUMN)

    def judged(self, factor: SecondFactor, text: str, now: datetime) -> Shown:
        """What somebody typed, held against the secret. Whether it is good is decided when the row is locked."""
        secret = base64.b32decode(self.secret_of(factor))
        step = matching_step(secret, text.replace(" ", ""), now)
        return Shown(enrolment=factor.enrolment, step=step, digest=digest_of(factor.member_id, text))

    def ticket(self, member: Member, client_id: str, now: datetime) -> str:
        """What says on the next page that this member's password was right, a moment ago and for this application."""
        until = int((now + TICKET_LIFETIME).timestamp())
        return f"{member.id.hex}.{until}.{self._mac(member, client_id, until)}"

    def honours(self, ticket: str, member: Member, client_id: str, now: datetime) -> bool:
        """Whether it still says so. It does not once the password is another."""
        _, until, mac = _parts(ticket)
        is_ours = hmac.compare_digest(mac.encode(), self._mac(member, client_id, until).encode())
        return is_ours and member.is_active and now.timestamp() < until

    def _mac(self, member: Member, client_id: str, until: int) -> str:
        said = "\n".join([member.tenant_id.hex, member.id.hex, client_id, str(until), str(member.password)])
        return hmac.digest(self._tickets, said.encode(), "sha256").hex()

    def _key(self, tenant_id: UUID, member_id: UUID, enrolment: UUID) -> DataKey:
        return DataKey(self._seals, f"{tenant_id}/second_factor/{member_id}/{enrolment}")


def member_named(ticket: str) -> UUID | None:
    """Whom a ticket names, before anybody has looked whether it is good."""
    named, _, _ = _parts(ticket)
    try:
        return UUID(hex=named)
    except ValueError:
        return None


def _parts(ticket: str) -> tuple[str, int, str]:
    named, _, rest = ticket.partition(".")
    until, _, mac = rest.partition(".")
    return named, int(until) if until.isascii() and until.isdigit() and len(until) <= DIGITS * 2 else 0, mac


def new_recovery_codes() -> list[str]:
    """Ten codes, for whoever has lost their phone: shown now and never again."""
    return [_grouped(base64.b32encode(secrets.token_bytes(RECOVERY_BYTES)).decode().lower()) for _ in range(RECOVERY_CODES)]


def digests_of(member_id: UUID, codes: list[str]) -> tuple[str, ...]:
    """What may be kept of them."""
    return tuple(digest_of(member_id, code) for code in codes)


def _grouped(text: str) -> str:
    return "-".join(text[at : at + GROUP] for at in range(0, len(text), GROUP))


def uri_of(secret: str, email: str, tenant: str) -> str:
    """What authenticator apps scan (the Key URI format)."""
    issuer = tenant[:LABEL_LENGTH].replace(":", " ")
    asked = urlencode(
        {"secret": secret, "issuer": issuer, "algorithm": "SHA1", "digits": DIGITS, "period": STEP_SECONDS}, quote_via=quote
    )
    return f"otpauth://totp/{quote(issuer, safe='')}:{quote(email, safe='@')}?{asked}"


def qr_of(uri: str) -> str:
    """The same to be scanned: an SVG without style or script, which stands in a page or in a file."""
    drawn = io.BytesIO()
    segno.make_qr(uri, error="l").save(
        drawn,
        kind="svg",
        scale=4,
        xmldecl=False,
        svgclass=None,
        lineclass=None,
        dark="#000",
        light="#fff",
        title="QR code for an authenticator app",
    )
    return drawn.getvalue().decode().strip()

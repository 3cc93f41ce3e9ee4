"""What the identity service reads from its environment."""

from datetime import timedelta
from typing import Annotated
from urllib.parse import urlsplit

from annotated_types import Ge
from pydantic import SecretStr, ValidationInfo, field_validator

from libs.common import settings
from libs.common.certificates import RootKey, Roots
from libs.common.sealing import decode_key

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Settings(settings.Settings):
    """What every service reads, the key that wraps stored secrets, and the one that certifies signing keys."""

    master_key: SecretStr
    """Base64 of 32 bytes; wraps stored secrets."""
    previous_master_key: SecretStr | None = None
    """The master key before, while `./cartwright keys rotate master` has not yet sealed everything anew. Seals nothing."""
    signing_key_days: Annotated[int, Ge(1)] = 30
    """How long a key signs access tokens before the next one does."""
    signing_key_lead_seconds: Annotated[int, Ge(1)] = 600
    """How long a signing key is published before it signs; others may keep the published keys for half as long."""
    issuer_root_key: SecretStr
    """The private half of the root key, on P-256: a PEM or a JWK."""
    letters_key: str = ""
    """The public key of whoever writes to people: a JWK on P-256. Invitations are sealed for it; without one, none is told of."""
    shows_invitations: bool = False
    """Answer whoever invites somebody with the token itself: for a stack that writes to nobody."""
    console_urls: str = ""
    """Where the console is, with spaces between several: the only places where whoever signs in with it is sent back to."""

    @field_validator("master_key", "previous_master_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            decode_key(value.get_secret_value())
        return value

    @field_validator("console_urls")
    @classmethod
    def _are_places(cls, value: str) -> str:
        for place in value.split():
            at = urlsplit(place)
            if (
                not at.hostname
                or at.fragment
                or (at.scheme != "https" and (at.scheme, at.hostname in LOOPBACK) != ("http", True))
            ):
                message = "each is an address with https, or with http on this machine"
                raise ValueError(message)
        return value

    @field_validator("issuer_root_key")
    @classmethod
    def _is_believed(cls, value: SecretStr, given: ValidationInfo) -> SecretStr:
        root = RootKey.read("", value.get_secret_value())
        public = given.data.get("issuer_root_public_key")
        if public is not None and root.public["kid"] not in Roots("", public):
            raise ValueError("its public half is not in CARTWRIGHT_ISSUER_ROOT_PUBLIC_KEY")
        return value

    @property
    def root_key(self) -> RootKey:
        """What signing keys are certified with."""
        return RootKey.read(self.issuer, self.issuer_root_key.get_secret_value())

    @property
    def master_keys(self) -> tuple[bytes, bytes | None]:
        """The master key in force, and the one before it if there is one."""
        previous = self.previous_master_key
        before = None if previous is None else decode_key(previous.get_secret_value())
        return decode_key(self.master_key.get_secret_value()), before

    @property
    def signing_key_lead(self) -> timedelta:
        """How long a signing key is published before it signs."""
        return timedelta(seconds=self.signing_key_lead_seconds)

    @property
    def signing_key_period(self) -> timedelta:
        """How long one signs."""
        return timedelta(days=self.signing_key_days)

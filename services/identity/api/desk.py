"""The desk of an API process: what it needs of secrets and keys to take people in."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from services.identity.api.factors import Factors
from services.identity.api.letters import InvitationTokens, Letters
from services.identity.api.passwords import Passwords
from services.identity.domain.invitation import Invitation, Token


class Desk:
    """Makes invitations' tokens, tells of them, hashes passwords, judges second factors, and knows where consoles are."""

    def __init__(
        self,
        master_key: bytes,
        letters: Letters | None = None,
        *,
        shows_tokens: bool = False,
        consoles: Collection[str] = (),
    ) -> None:
        self.passwords = Passwords()
        self.factors = Factors(master_key)
        self.consoles = consoles
        self._tokens = InvitationTokens(master_key)
        self._letters = letters
        self._shows_tokens = shows_tokens

    def letter(self, tenant_id: UUID, email: str, token: str) -> str | None:
        """A letter with a token for this address, if letters are written."""
        letter: dict[str, Any] = {"to": email, "token": token, "tenant_id": str(tenant_id)}
        return self._letters.seal(letter) if self._letters else None

    def token(self, tenant_id: UUID, invitation_id: UUID, email: str) -> tuple[Token, str | None]:
        """What may be kept of a new token, and the letter that takes it to its addressee if letters are written."""
        text, token = self._tokens.new(tenant_id, invitation_id)
        return token, self.letter(tenant_id, email, text)

    def shown(self, invitation: Invitation) -> str | None:
        """An invitation's token, for whoever sends it, where that is allowed: on a stack that writes to nobody."""
        return self._tokens.again(invitation) if self._shows_tokens else None

"""The broker's address for those who say who they are, and what each of them proves it with."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from deploy.local.errors import StackError

MECHANISM: Final = "SCRAM-SHA-512"
"""How everybody proves who he is: the secret itself is never sent."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name, and where its secret lies."""

    username: str
    secret_file: Path

    def secret(self) -> str:
        """Read the secret."""
        try:
            return self.secret_file.read_text().strip()
        except OSError as error:
            raise StackError(f"the secret of {self.username} cannot be read: {self.secret_file} ({error.strerror})") from error


@dataclass(frozen=True, slots=True)
class SaslListener:
    """One address, one mechanism, and everybody who is known there."""

    bootstrap_servers: str
    mechanism: str
    principals: Mapping[str, Credentials]
    certificate: Path | None = None
    """Which one is shown there, by TLS; None where there is none."""

    def client(self, principal: str) -> dict[str, Any]:
        """Return the arguments of any aiokafka client that speaks as this principal."""
        known = self.principals[principal]
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "security_protocol": self._protocol,
            **({"ssl_context": ssl.create_default_context(cafile=self.certificate)} if self.certificate else {}),
            "sasl_mechanism": self.mechanism,
            "sasl_plain_username": known.username,
            "sasl_plain_password": known.secret(),
        }

    def environment(self, principal: str) -> dict[str, str]:
        """Return the variables of a service that speaks as this principal."""
        known = self.principals[principal]
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "KAFKA_SECURITY_PROTOCOL": self._protocol,
            **({"KAFKA_SSL_CAFILE": str(self.certificate)} if self.certificate else {}),
            "KAFKA_SASL_MECHANISM": self.mechanism,
            "KAFKA_SASL_USERNAME": known.username,
            "KAFKA_SASL_PASSWORD": known.secret(),
        }

    @property
    def _protocol(self) -> str:
        return "SASL_SSL" if self.certificate else "SASL_PLAINTEXT"

    def as_json(self) -> dict[str, Any]:
        """Return what `status --json` shows: never a secret, only where it lies."""
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "mechanism": self.mechanism,
            **({"certificate": str(self.certificate)} if self.certificate else {}),
            "principals": {
                name: {"username": it.username, "secret_file": str(it.secret_file)} for name, it in self.principals.items()
            },
        }

    @classmethod
    def from_json(cls, shown: dict[str, Any]) -> Self:
        """Read what `as_json` wrote."""
        principals = {name: Credentials(it["username"], Path(it["secret_file"])) for name, it in shown["principals"].items()}
        certificate = Path(shown["certificate"]) if "certificate" in shown else None
        return cls(shown["bootstrap_servers"], shown["mechanism"], principals, certificate)

"""What a gateway is to be like, wherever it stands; from this and what is declared its configuration is made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple


class Upstream(NamedTuple):
    """One address of a service's APIs. A name may stand for several: all that it resolves to are asked in turn."""

    host: str
    port: int
    ops_port: int
    """Where its readiness is asked for."""


class Rate(NamedTuple):
    """A bucket: so many a second, and so many at once."""

    per_second: int
    burst: int


STRANGERS: Final = Rate(200, 2000)
BEGINNERS: Final = Rate(200, 1000)


@dataclass(frozen=True, slots=True)
class Limits:
    """How often one address may ask. The services count too, and know who asks: this is for what needs no token."""

    strangers: Rate = STRANGERS
    """Of each route that anybody may ask."""
    beginners: Rate = BEGINNERS
    """Of each route that begins what costs, such as a checkout."""
    addresses: int = 20_000
    """So many are remembered; the one that was longest away is forgotten, which only ever lets somebody in."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """The files of the certificate and its key, in one folder: what is moved into their place there is taken up."""

    chain: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Plan:
    """One gateway."""

    services: Mapping[str, Sequence[Upstream]]
    folder: Path
    """Where its files lie: they name each other, and Envoy's working directory is nobody's."""
    host: str
    port: int
    ops_port: int
    """Where operators ask it, on the loopback alone."""
    watched_port: int = 0
    """Where whoever watches it from elsewhere asks whether it is ready and for its metrics, and nothing else. 0: nowhere."""
    issuer: str = ""
    """Whose tokens it knows; without one it leaves all of that to the services."""
    limits: Limits = field(default_factory=Limits)
    source: str = ""
    """The address it asks the services from, where it shares a machine with those who are not to be believed."""
    certificates: Certificates | None = None
    """Without them it speaks plainly."""
    has_http3: bool = False
    """Whether it speaks HTTP/3 too, on the same port over UDP."""
    trusted_hops: int = 0
    """How many proxies of ours stand before it, whose `X-Forwarded-For` is believed."""
    connections: int = 10_000

    def file(self, name: str) -> dict[str, Any]:
        """One of its files, as Envoy is told where it is."""
        return {"path_config_source": {"path": str(self.folder / name)}, "resource_api_version": "V3"}

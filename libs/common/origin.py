"""Who asks, by what and from where: it travels with a command into the audit trail."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Whoever is behind an act, as the audit trail tells it: ids alone, no name and no address of anybody's house."""

    actor: str
    """The subject of the token; the service itself, for what it does of its own accord; empty for a stranger."""
    client_id: str = ""
    session_id: str = ""
    address: str = ""
    """The network that the request came from, not the machine in it."""
    request_id: str = ""
    by_platform: bool = False
    """Whether it is an operator of the platform, who may act on any tenant's things."""
    by_shopper: bool = False

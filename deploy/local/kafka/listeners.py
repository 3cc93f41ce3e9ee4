"""Where a broker of ours listens, and whom it lets in.

It has three listeners. On `CONTROLLER` the node speaks with itself. On `SASL` everybody proves who he is. On `PLAINTEXT`
nobody does, so whoever comes is ANONYMOUS, and has the few rights of such; it is left out where nobody may come so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from deploy.local.access import ANONYMOUS, declared_access
from deploy.local.kafka.tls import Tls
from deploy.local.ports import HOST
from deploy.local.principals import MECHANISM, Credentials, SaslListener
from deploy.local.state import Home

BrokerAccess = Literal["open", "publishers", "closed"]
"""What may be done without credentials: everything; publishing as a system outside does; nothing."""

NODES: Final = {1: "kafka", 2: "kafka-2", 3: "kafka-3"}
"""A cluster's nodes by their numbers; a broker by itself is the first."""
LISTENERS: Final = ("", ".sasl", ".controller")
"""What follows a node's name in those of its ports."""

ADMIN: Final = "admin"
"""The one principal that every right is granted to: the node itself, and who makes users, rights and topics."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Where a broker listens and whom it lets in."""

    port: int
    sasl_port: int
    controller_port: int
    admin_secret: str
    access: BrokerAccess
    bind: str = HOST
    """Where it listens; clients are told to come to the loopback."""
    node: int = 1
    voters: Mapping[int, int] = field(default_factory=dict)
    """Every node's controller port, where there are several."""
    tls: Tls | None = None
    """What is shown to whoever comes with credentials, other nodes too; None on the loopback of a single one."""

    def properties(self) -> dict[str, str]:
        """Return everything about listeners, and about who is let in."""
        anonymous = self.access != "closed"
        inside = [f"PLAINTEXT://{self.bind}:{self.port}"] if anonymous else []
        outside = [f"PLAINTEXT://{HOST}:{self.port}"] if anonymous else []
        admins = [ADMIN, ANONYMOUS] if self.access == "open" else [ADMIN]
        plain, voters = _plain(self.admin_secret), self.voters or {self.node: self.controller_port}
        protocol = "SASL_SSL" if self.tls else "SASL_PLAINTEXT"
        return {
            "node.id": str(self.node),
            "listeners": ",".join(
                [*inside, f"SASL://{self.bind}:{self.sasl_port}", f"CONTROLLER://{self.bind}:{self.controller_port}"]
            ),
            "advertised.listeners": ",".join([*outside, f"SASL://{HOST}:{self.sasl_port}"]),
            "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,SASL:{protocol},CONTROLLER:{protocol}",
            **(self.tls.properties() if self.tls else {}),
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": ",".join(f"{node}@{HOST}:{port}" for node, port in voters.items()),
            "inter.broker.listener.name": "SASL",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "sasl.mechanism.controller.protocol": "PLAIN",
            # PLAIN is for the administrator alone, who is known before there is anywhere to look anybody up.
            "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.controller.plain.sasl.jaas.config": plain,
            "listener.name.sasl.sasl.enabled.mechanisms": f"PLAIN,{MECHANISM}",
            "listener.name.sasl.plain.sasl.jaas.config": plain,
            f"listener.name.sasl.{MECHANISM.lower()}.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "false",
            "super.users": ";".join(f"User:{name}" for name in admins),
        }


def sasl_listener(home: Home, port: int, tls: Tls | None = None) -> SaslListener:
    """Return the address for who has credentials, with a secret made for everybody who may come."""
    principals = {name: Credentials(name, _secret_file(home, name)) for name in (ADMIN, *declared_access().principals)}
    return SaslListener(f"{HOST}:{port}", MECHANISM, principals, tls.certificate if tls else None)


def listeners(home: Home, ports: Mapping[str, int], access: BrokerAccess) -> Listeners:
    """Return the listeners of a stack's broker."""
    secret = Credentials(ADMIN, _secret_file(home, ADMIN)).secret()
    return Listeners(ports["kafka"], ports["kafka.sasl"], ports["kafka.controller"], secret, access)


def admin_options(sasl: SaslListener) -> dict[str, Any]:
    """Return a client's arguments for the administrator, whom the broker knows before it knows anybody."""
    return sasl.client(ADMIN) | {"sasl_mechanism": "PLAIN"}


def _plain(secret: str) -> str:
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    return f'{module} required username="{ADMIN}" password="{secret}" user_{ADMIN}="{secret}";'


def _secret_file(home: Home, principal: str) -> Path:
    name = f"kafka-{principal}"
    home.secret(name)
    return home.secret_file(name)

"""A broker that asks who comes, in each of the ways that others' brokers do: a real one, with TLS and all that it can ask for."""

import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from deploy.local.infrastructure import BROKER_PORTS
from deploy.local.kafka.admin import kafka_admin
from deploy.local.kafka.client import ready
from deploy.local.kafka.cluster import java_environment, write_cluster
from deploy.local.kafka.install import installed
from deploy.local.kafka.listeners import ADMIN, Listeners, admin_options, sasl_listener
from deploy.local.ports import HOST, choose_ports
from deploy.local.processes import Child, dying_with_parent
from deploy.local.state import Home
from deploy.local.topics import Topic, create_topics
from libs.common.messaging.broker import Broker
from libs.common.settings import KafkaLogin
from tests.shared.certificates import Authority, Certified

if TYPE_CHECKING:
    from libs.common.settings import Settings

TOPIC, USER, SECRET = "asked.v1", "somebody", "known to somebody and the broker"
UNSECURED = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required"


@dataclass(frozen=True, slots=True)
class Doors(Listeners):
    """Two listeners more, both with TLS: `ASKING` wants to be shown something, and `MUTUAL` a certificate."""

    asking_port: int = 0
    mutual_port: int = 0
    files: Path = Path()

    def properties(self) -> dict[str, str]:
        own = Listeners.properties(self)
        more = f",ASKING://{HOST}:{self.asking_port},MUTUAL://{HOST}:{self.mutual_port}"
        module = "org.apache.kafka.common.security.plain.PlainLoginModule"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        asking = "listener.name.asking"
        return own | {
            "listeners": own["listeners"] + more,
            "advertised.listeners": own["advertised.listeners"] + more,
            "listener.security.protocol.map": own["listener.security.protocol.map"] + ",ASKING:SASL_SSL,MUTUAL:SSL",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.files / "broker.both.pem"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.files / "trusted.pem"),
            "listener.name.mutual.ssl.client.auth": "required",
            f"{asking}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            f"{asking}.plain.sasl.jaas.config": f'{module} required user_{USER}="{SECRET}";',
            f"{asking}.scram-sha-256.sasl.jaas.config": scram,
            f"{asking}.scram-sha-512.sasl.jaas.config": scram,
            # Kafka's own judge of tokens without a signature: it looks at who it is and until when, as those with one do.
            f"{asking}.oauthbearer.sasl.jaas.config": f"{UNSECURED};",
            "allow.everyone.if.no.acl.found": "true",
        }


@dataclass(frozen=True)
class Guarded:
    """The broker, and what is needed to be let in."""

    doors: Doors
    authority: Authority
    other: Authority
    member: Certified
    stranger: Certified
    admin: Mapping[str, Any]
    """How its administrator comes in."""

    def settings(self, door: str, **chosen: Any) -> dict[str, Any]:
        protocol, port = {"asking": ("SASL_SSL", self.doors.asking_port), "mutual": ("SSL", self.doors.mutual_port)}[door]
        return {
            "kafka_bootstrap_servers": f"{HOST}:{port}",
            "kafka_security_protocol": protocol,
            "kafka_ssl_cafile": self.authority.file,
            "topic_prefix": "",
        } | chosen

    def broker(self, door: str, **chosen: Any) -> Broker:
        return Broker(cast("Settings", Asked(**self.settings(door, **chosen))))


class Asked(KafkaLogin):
    """What a broker reads of the settings."""

    kafka_bootstrap_servers: str
    topic_prefix: str


def token(*, seconds: float) -> str:
    """One that says who it is and until when, and is not signed."""
    said: list[Mapping[str, object]] = [{"alg": "none"}, {"sub": USER, "iat": time.time() - 600, "exp": time.time() + seconds}]
    return ".".join(base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode() for each in said) + "."


@asynccontextmanager
async def guarded_broker(folder: Path) -> AsyncIterator[Guarded]:
    """A broker of its own in this folder."""
    home = Home(folder)
    home.prepare()
    authority, other = Authority(folder / "files", "trusted"), Authority(folder / "files", "other")
    authority.certify("broker").together().rename(folder / "files" / "broker.both.pem")
    ports = choose_ports([*BROKER_PORTS, "asking", "mutual"], {}, print, spread=True)
    sasl = sasl_listener(home, ports["kafka.sasl"])
    own = (ports["kafka"], ports["kafka.sasl"], ports["kafka.controller"], sasl.principals[ADMIN].secret(), "open")
    doors = Doors(*own, asking_port=ports["asking"], mutual_port=ports["mutual"], files=folder / "files")  # type: ignore[arg-type]
    kafka = installed()
    command = [*dying_with_parent("TERM"), *kafka.broker(write_cluster(kafka, folder / "kafka", doors))]
    child = Child("kafka", command, environment=java_environment(), log=home.log("kafka"))
    await child.start()
    try:
        await ready(**admin_options(sasl), seconds=120)
        await create_topics(topics=[Topic(TOPIC, USER, partitions=1, replication=1, settings={})], **admin_options(sasl))
        async with kafka_admin(**admin_options(sasl)) as admin:
            await admin.put_users({USER: SECRET})
        yield Guarded(doors, authority, other, authority.certify("member"), other.certify("stranger"), admin_options(sasl))
    finally:
        await child.kill()

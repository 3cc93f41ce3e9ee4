"""Whoever comes to a broker that asks who comes, in each of the ways that others' brokers do, is let in or told why not."""

import asyncio
import stat
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from deploy.local.access import declared_access
from deploy.local.environment import python
from deploy.local.errors import StackError
from deploy.local.kafka.admin import kafka_admin
from deploy.local.kafka.client import require_broker
from deploy.local.state import ROOT
from libs.common.messaging.broker import Broker, BrokerRefusedError
from libs.common.messaging.inbox import kafka_broker
from libs.common.settings import KafkaLogin, SettingsError
from tests.shared.guarded_broker import SECRET, TOPIC, USER, Guarded, guarded_broker, token
from tests.shared.variables import without_ours

if TYPE_CHECKING:
    from faststream.kafka import KafkaMessage


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(bootstrap_servers: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    """A broker of its own. That the shared one is there says that Java is."""
    assert bootstrap_servers
    async with guarded_broker(tmp_path_factory.mktemp("guarded")) as guarded:
        yield guarded


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def _passes_through(broker: Broker) -> None:
    """What is published so is read so, by a follower and by a consumer of ours."""
    value = str(time.time_ns()).encode()
    producer = await broker.producer()
    await producer.send_and_wait(TOPIC, value, key=b"k")
    await producer.stop()
    followed = [record.value async for record in _until_the_end(broker)]
    assert followed[-1] == value
    kafka = kafka_broker(broker)
    subscriber = kafka.subscriber(TOPIC, auto_offset_reset="earliest")
    await kafka.start()
    try:
        read: list[bytes] = []
        while not read or read[-1] != value:
            message: KafkaMessage | None = await subscriber.get_one(timeout=120)
            assert message is not None
            read.append(message.body)
    finally:
        await kafka.stop()
    assert read == followed


async def _until_the_end(broker: Broker) -> AsyncIterator[Any]:
    async for record in broker.follow([TOPIC]):
        if record is None:
            return
        yield record


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_with_a_user_and_a_password_one_is_let_in(guarded: Guarded, mechanism: str) -> None:
    who = {"kafka_sasl_username": USER, "kafka_sasl_password": SECRET, "kafka_sasl_mechanism": mechanism}
    await _passes_through(guarded.broker("asking", **who))


async def test_with_a_certificate_of_ones_own_one_is_let_in(guarded: Guarded) -> None:
    own = {"kafka_ssl_certfile": guarded.member.certificate, "kafka_ssl_keyfile": guarded.member.key}
    await _passes_through(guarded.broker("mutual", **own))


async def test_a_token_is_read_again_at_each_log_in(guarded: Guarded, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("")
    broker = guarded.broker("asking", kafka_sasl_mechanism="OAUTHBEARER", kafka_sasl_tokenfile=file)
    for useless, reason in (("", "there is no token in"), (token(seconds=-60), "the token is not let in: .*invalid_token")):
        file.write_text(useless)
        with pytest.raises(BrokerRefusedError, match=reason):
            await broker.producer()
    file.write_text(token(seconds=3600) + "\n")
    await _passes_through(broker)
    file.unlink()
    with pytest.raises(BrokerRefusedError, match=f"the token in {file} cannot be read"):
        await broker.producer()


REFUSED = {
    "another password": (
        "asking",
        {"kafka_sasl_mechanism": "PLAIN", "kafka_sasl_password": "guessed"},
        "somebody is not let in: ",
    ),
    "another user": ("asking", {"kafka_sasl_username": "nobody"}, "nobody is not let in: .*credentials"),
    "a secret that the broker has for another mechanism": (
        "asking",
        {"kafka_sasl_mechanism": "SCRAM-SHA-256"},
        "somebody is not let in: .*SCRAM-SHA-256",
    ),
    "a broker that another authority certified": ("asking", {"kafka_ssl_cafile": "other"}, "TLS with .* fails: .*certificate"),
    "no certificate": ("mutual", {}, "TLS with .* fails: .*certificate required"),
    "a certificate of another authority": ("mutual", {"kafka_ssl_certfile": "stranger"}, "TLS with .* fails: .*certificate"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_who_is_not_let_in_is_told_why_and_not_that_the_broker_is_away(
    guarded: Guarded, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    door, written, reason = REFUSED[case]
    known = {"other": guarded.other.file, "stranger": guarded.stranger.certificate}
    chosen: dict[str, Any] = {name: known.get(value, value) for name, value in written.items()}
    if "kafka_ssl_certfile" in chosen:
        chosen["kafka_ssl_keyfile"] = guarded.stranger.key
    if door == "asking":
        chosen = {"kafka_sasl_username": USER, "kafka_sasl_password": SECRET, **chosen}
    with pytest.raises(BrokerRefusedError, match=reason):
        await guarded.broker(door, **chosen).producer()
    for name, value in guarded.settings(door, **chosen).items():
        monkeypatch.setenv(f"CARTWRIGHT_{name.upper()}", str(value))
    with pytest.raises(StackError, match=f"does not let us in: {reason}"):
        await require_broker(guarded.settings(door)["kafka_bootstrap_servers"])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"SECURITY_PROTOCOL": "SASL_SSL"}, "SCRAM-SHA-512 needs CARTWRIGHT_KAFKA_SASL_USERNAME and .*_PASSWORD"),
        ({"SECURITY_PROTOCOL": "SASL_SSL", "SASL_MECHANISM": "OAUTHBEARER"}, "needs CARTWRIGHT_KAFKA_SASL_TOKENFILE"),
        ({"SSL_CAFILE": "/nowhere"}, "KAFKA_SSL_CAFILE .*does not point to a file"),
        ({"SSL_CAFILE": __file__}, "KAFKA_SSL_CAFILE .*holds no certificate that can be used"),
        ({"SSL_CERTFILE": __file__}, "KAFKA_SSL_CERTFILE .*holds no certificate that can be used"),
    ],
)
async def test_what_cannot_prove_anything_is_refused_as_the_process_starts(
    given: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"CARTWRIGHT_KAFKA_{name}", value)
    with pytest.raises(SettingsError, match=told):
        KafkaLogin.read()


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_the_users_of_the_matrix_are_made_by_their_plan_once_and_whoever_has_another_password_gets_his(
    guarded: Guarded, mechanism: str, tmp_path: Path
) -> None:
    principals = {*declared_access().principals}
    async with kafka_admin(**guarded.admin) as admin:
        await admin.put_users({"manager": SECRET}, mechanism)
    manager = {"kafka_sasl_username": "manager", "kafka_sasl_password": SECRET, "kafka_sasl_mechanism": mechanism}
    await _eventually(guarded, manager)

    async def provision(*options: str) -> list[str]:
        chosen = guarded.settings("asking", **manager)
        environment = without_ours() | {
            **{f"CARTWRIGHT_{name.upper()}": str(value) for name, value in chosen.items()},
            "CARTWRIGHT_HOME": str(tmp_path / "home"),
            "PYTHONPATH": str(ROOT),
        }
        command = python("deploy.cli", "provision", "--only", "users", "--secrets", str(tmp_path / "secrets"), *options)
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
        told, _ = await process.communicate()
        assert process.returncode == 0
        return told.decode().splitlines()

    files = {name: tmp_path / "secrets" / name / "kafka-sasl-password" for name in principals}
    wanted = {*(f"+ user {name} ({mechanism})" for name in principals), *(f"+ {file}" for file in files.values())}
    planned = await provision("--plan")
    assert ({*planned[:-1]}, planned[-1]) == (wanted, f"{len(wanted)} to be done")
    assert not (tmp_path / "secrets").exists()
    assert [*await provision()][:-1] == planned[:-1]
    passwords = {name: file.read_text() for name, file in files.items()}
    assert len({*passwords.values()}) == len(principals)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files.values()} == {0o600}
    for name, password in passwords.items():
        await _eventually(guarded, manager | {"kafka_sasl_username": name, "kafka_sasl_password": password})
    assert await provision() == ["nothing done"]
    async with kafka_admin(**guarded.admin) as admin:
        await admin.put_users({"cart": "what nobody knows"}, mechanism)
    async with asyncio.timeout(120):
        while (again := await provision("--plan")) == ["nothing to be done"]:
            await asyncio.sleep(0.1)
    assert again == [f"+ user cart ({mechanism})", "1 to be done"]
    assert await provision() == [f"+ user cart ({mechanism})", "1 done"]
    await _eventually(guarded, manager | {"kafka_sasl_username": "cart", "kafka_sasl_password": passwords["cart"]})


async def _eventually(guarded: Guarded, who: Mapping[str, Any]) -> None:
    """Returns when the broker lets him in: it hears of users a moment after they are made."""
    async with asyncio.timeout(120):
        while True:
            try:
                await (await guarded.broker("asking", **who).producer()).stop()
            except BrokerRefusedError:
                await asyncio.sleep(0.1)
            else:
                return

"""How a client proves to Kafka who it is, and why it was not let in."""

import asyncio
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiokafka import errors as kafka
from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import AIOKafkaConnection, OAuthAuthenticator, create_conn

from libs.common.silence import Loop

if TYPE_CHECKING:
    from libs.common.settings import KafkaLogin

ANSWER_MS = 10_000
ACCEPT_SECONDS = 5
"""How long a broker may take to accept a connection, with its TLS: while it is waited for, so are all others."""
ALERT_SECONDS = 2
"""How long a broker may take over saying that it does not know our certificate."""

REFUSALS: tuple[type[Exception], ...] = (
    kafka.TopicAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
    kafka.SaslAuthenticationFailed,
    kafka.UnsupportedSaslMechanismError,
    kafka.IllegalSaslStateError,  # of a broker that asks nobody who he is
)
"""The broker is there, and does not let us: no time heals it, somebody has to grant a right or correct a secret."""

BROKEN_OFF = (ssl.SSLEOFError, ssl.SSLZeroReturnError)
"""What a connection that breaks looks like under TLS: nobody refused anything."""


class TokenFile(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """A token that somebody else renews in a file: read again at each log-in."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def token(self) -> str:
        """The token as it is now. Raises SaslAuthenticationFailed if there is none: a client takes that for what it is."""
        try:
            token = (await asyncio.to_thread(self._path.read_text, "utf-8")).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise kafka.SaslAuthenticationFailed(f"the token in {self._path} cannot be read: {error}") from error
        if not token:
            raise kafka.SaslAuthenticationFailed(f"there is no token in {self._path}")
        return token


class _Judged(OAuthAuthenticator):  # type: ignore[misc]  # as above
    """What the broker thinks of a token. It answers to a bad one without an error, and aiokafka takes that for a welcome."""

    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        """Show the token, and hear what is said of it."""
        if payload:
            raise kafka.SaslAuthenticationFailed(payload.decode(errors="replace"))
        shown: tuple[bytes, bool] | None = await super().step(payload)
        return shown


def _authenticator_oauth(connection: AIOKafkaConnection) -> OAuthAuthenticator:
    return _Judged(sasl_oauth_token_provider=connection._sasl_oauth_token_provider)  # noqa: SLF001 - it is theirs


_connect = AIOKafkaConnection.connect


async def _connect_until_silence(connection: AIOKafkaConnection) -> Any:
    """Connect so that the connection ends when the broker falls silent: aiokafka sets nothing, and waits 40 s for each answer."""
    loop = connection._loop  # noqa: SLF001 - by which it connects
    connection._loop = Loop(loop, ACCEPT_SECONDS)  # noqa: SLF001
    try:
        return await _connect(connection)
    finally:
        connection._loop = loop  # noqa: SLF001


# Here, for there is no other place: a connection decides by itself whom it asks, and how it connects.
AIOKafkaConnection.authenticator_oauth = _authenticator_oauth
AIOKafkaConnection.connect = _connect_until_silence


def login(settings: "KafkaLogin") -> dict[str, Any]:
    """The arguments of any aiokafka client that say how to prove who we are. Certificates are read here."""
    arguments: dict[str, Any] = {"security_protocol": settings.kafka_security_protocol}
    if settings.kafka_security_protocol.endswith("SSL"):
        arguments["ssl_context"] = context = ssl.create_default_context(cafile=settings.kafka_ssl_cafile)
        if settings.kafka_ssl_certfile:
            context.load_cert_chain(settings.kafka_ssl_certfile, settings.kafka_ssl_keyfile)
    if settings.kafka_security_protocol.startswith("SASL"):
        arguments["sasl_mechanism"] = settings.kafka_sasl_mechanism
        if settings.kafka_sasl_mechanism == "OAUTHBEARER":
            assert settings.kafka_sasl_tokenfile
            arguments["sasl_oauth_token_provider"] = TokenFile(settings.kafka_sasl_tokenfile)
        else:
            password = settings.kafka_sasl_password
            arguments["sasl_plain_username"] = settings.kafka_sasl_username
            arguments["sasl_plain_password"] = password.get_secret_value() if password else None
    return arguments


async def refused_at(host: str, port: int, arguments: dict[str, Any]) -> str | None:
    """Log in once more and hear why we are not let in; None if we are, or if nobody is there."""
    who = arguments.get("sasl_plain_username") or ("the token" if "sasl_mechanism" in arguments else "the certificate")
    try:
        (await create_conn(host, port, request_timeout_ms=ANSWER_MS, **arguments)).close()
    except REFUSALS as error:
        return f"{who} is not let in: {about(error) or type(error).__name__}"
    except BROKEN_OFF:
        return None
    except ssl.SSLError as error:
        return f"TLS with {host}:{port} fails: {_told(error)}"
    except (kafka.KafkaError, OSError, TimeoutError):
        reason = await _alert(host, port, arguments.get("ssl_context"))
        return reason and f"TLS with {host}:{port} fails: {reason}"
    return None


async def _alert(host: str, port: int, context: ssl.SSLContext | None) -> str | None:
    """What a broker says of our certificate: it comes after the handshake, which is over for us by then."""
    if context is None:
        return None
    try:
        async with asyncio.timeout(ALERT_SECONDS):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            try:
                await reader.read(1)
            finally:
                writer.close()
    except BROKEN_OFF:
        return None
    except ssl.SSLError as error:
        return _told(error)
    except (OSError, TimeoutError):
        return None
    return None


def _told(error: ssl.SSLError) -> str:
    """OpenSSL's words, without the line of its source where they were said."""
    said = getattr(error, "verify_message", None) or (error.reason or str(error)).lower().replace("_", " ")
    return str(said)


def about(error: BaseException) -> str:
    """What an error of the broker's is about: a topic, a group, or its own words."""
    return " ".join(str(each) for each in error.args if each)

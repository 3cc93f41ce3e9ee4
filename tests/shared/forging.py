"""Tokens that nobody should believe: put together by hand, for no library keeps us from nonsense."""

import base64
import hmac
import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from libs.common.jwk import thumbprint

LEFT_OUT: Any = object()
RSA_KEY, ED_KEY = rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()
P384 = ec.generate_private_key(ec.SECP384R1())


def jwk_of(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    """The public key under its thumbprint."""
    public: dict[str, str] = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**public, "kid": thumbprint(public)}


def _part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else orjson.dumps(value)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(sign: Callable[[bytes], bytes], header: Any, payload: Any) -> str:
    """A token put together by hand."""
    head = f"{_part(header)}.{_part(payload)}"
    return f"{head}.{_part(sign(head.encode()))}"


def by(key: Any) -> Callable[[bytes], bytes]:
    """Signing ES256 with this key."""
    algorithm = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256)
    return lambda text: algorithm.sign(text, key)


class Forger:
    """Has a key that is believed, and abuses it in every way; and a thief's."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, claims: Mapping[str, Any]) -> None:
        """`claims`: what a good token says."""
        self.key, self.thief = key, ec.generate_private_key(ec.SECP256R1())
        self.jwk, self.thiefs_jwk = jwk_of(self.key), jwk_of(self.thief)
        self.header = {"typ": "at+jwt", "alg": "ES256", "kid": self.jwk["kid"]}
        self._claims = claims

    def claims(self, **changes: Any) -> dict[str, Any]:
        """What a good token of this moment says, but for these."""
        issued_at = int(time.time())
        good = {**self._claims, "iat": issued_at, "exp": issued_at + 600}
        return {name: value for name, value in {**good, **changes}.items() if value is not LEFT_OUT}

    def token(self, header: dict[str, Any] | None = None, *, key: Any = None, **changes: Any) -> str:
        return signed(by(key or self.key), {**self.header, **(header or {})}, self.claims(**changes))

    def forgeries(self) -> dict[str, str]:
        """By what is wrong with it, each a token that must be refused."""
        return {**self._of_signatures(), **self._of_keys(), **self._of_headers(), **self._of_claims(), **self._of_shape()}

    def _of_signatures(self) -> dict[str, str]:
        good = self.token()
        head, body, signature = good.split(".")
        return {
            "no algorithm": signed(lambda _: b"", {**self.header, "alg": "none"}, self.claims()),
            "no algorithm, in capitals": signed(lambda _: b"", {**self.header, "alg": "NONE"}, self.claims()),
            "no algorithm, old signature": signed(
                lambda _: base64.urlsafe_b64decode(signature + "=="), {**self.header, "alg": "none"}, self.claims()
            ),
            "no signature": f"{head}.{body}.",
            "signature left out": f"{head}.{body}",
            "signature of another token": f"{head}.{_part(self.claims(sub=str(uuid4())))}.{signature}",
            "signature cut": good[:-10],
            "signature flipped": f"{head}.{body}.{_flipped(signature)}",
            "signature all zero": signed(lambda _: bytes(64), self.header, self.claims()),
            "signature in DER": signed(lambda text: self.key.sign(text, ec.ECDSA(SHA256())), self.header, self.claims()),
            "header flipped": f"{_part({**self.header, 'x': 1})}.{body}.{signature}",
        }

    def _of_keys(self) -> dict[str, str]:
        return {
            "the thief's key under our id": self.token(key=self.thief),
            "the thief's key under its own id": self.token({"kid": self.thiefs_jwk["kid"]}, key=self.thief),
            "no key id": signed(by(self.key), {"typ": "at+jwt", "alg": "ES256"}, self.claims()),
            "a key id that is a path": self.token({"kid": "../../dev/null"}),
            "a key id that is a number": self.token({"kid": 1}),
            "a key id that is null": self.token({"kid": None}),
            "the thief's key in jwk": self.token({"jwk": self.thiefs_jwk}, key=self.thief),
            "the thief's key in jwk, under its id": self.token(
                {"jwk": self.thiefs_jwk, "kid": self.thiefs_jwk["kid"]}, key=self.thief
            ),
            "the thief's key at jku": self.token(
                {"jku": "https://thief.test/jwks.json", "kid": self.thiefs_jwk["kid"]}, key=self.thief
            ),
            "the thief's chain in x5c": self.token(
                {"x5c": [base64.b64encode(self._public_bytes()[1]).decode()], "kid": self.thiefs_jwk["kid"]}, key=self.thief
            ),
            "the thief's chain at x5u": self.token(
                {"x5u": "https://thief.test/chain.pem", "kid": self.thiefs_jwk["kid"]}, key=self.thief
            ),
        }

    def _of_headers(self) -> dict[str, str]:
        now = int(time.time())
        return {
            "RS256": signed(
                lambda text: RSA_KEY.sign(text, PKCS1v15(), SHA256()), {**self.header, "alg": "RS256"}, self.claims()
            ),
            "EdDSA": signed(ED_KEY.sign, {**self.header, "alg": "EdDSA"}, self.claims()),
            "ES256K": self.token({"alg": "ES256K"}),
            "ES384 on another curve": signed(by(P384), {**self.header, "alg": "ES384"}, self.claims()),
            "ES256 on another curve": signed(by(P384), self.header, self.claims()),
            "an algorithm that is a list": self.token({"alg": ["ES256"]}),
            "an unknown critical header": self.token({"crit": ["exp"], "exp": now}),
            "a known critical header": self.token({"crit": ["b64"], "b64": True}),
            "an empty critical header": self.token({"crit": []}),
            "an ID token": self.token({"typ": "JWT"}),
            "no type": signed(by(self.key), {"alg": "ES256", "kid": self.jwk["kid"]}, self.claims()),
            "a type that is no text": self.token({"typ": 1}),
            "a type that is null": self.token({"typ": None}),
        }

    def _of_claims(self) -> dict[str, str]:
        now = int(time.time())
        return {
            "expired": self.token(iat=now - 700, exp=now - 61),
            "expired long ago": self.token(iat=0, exp=600),
            "not yet valid": self.token(nbf=now + 600),
            "issued in the future": self.token(iat=now + 600, exp=now + 900),
            "lives for ten years": self.token(exp=now + 10 * 365 * 86_400),
            "lives a second too long": self.token(iat=now, exp=now + 901),
            "issued for ever, made to look short": self.token(iat=now + 10 * 365 * 86_400 - 600, exp=now + 10 * 365 * 86_400),
            "an end that is text": self.token(exp="never"),
            "an end that is null": self.token(exp=None),
            "a beginning that is text": self.token(iat="now"),
            "milliseconds that are text": self.token(iat_ms=str(now * 1_000)),
            "another issuer": self.token(iss="https://thief.test"),
            "our issuer with a slash": self.token(iss=self._claims["iss"] + "/"),
            "issuers": self.token(iss=[self._claims["iss"]]),
            "another audience": self.token(aud=["nobody"]),
            "no audience in the list": self.token(aud=[]),
            "an audience that begins like ours": self.token(aud="cartwright"),
            "an audience that is a number": self.token(aud=1),
            "a subject that is no id": self.token(sub="root"),
            "a subject that is a number": self.token(sub=1),
            "a tenant that is no id": self.token(tid="*"),
            "a tenant that is null": self.token(tid=None),
            "roles that are lists": self.token(roles=[["client"]]),
            "roles that are a number": self.token(roles=1),
        }

    def _of_shape(self) -> dict[str, str]:
        good = self.token()
        return {
            "claims that are a list": signed(by(self.key), self.header, []),
            "claims that are no JSON": signed(by(self.key), self.header, b"{"),
            "a header that is a list": signed(by(self.key), [], self.claims()),
            "a header that is no JSON": signed(by(self.key), b"\xff", self.claims()),
            "five parts": f"{good}.x.y",
            "nothing": "",
            "dots": "..",
            "not ASCII": "é.é.é",
            "very long": "a" * 100_000,
            **{
                f"the public key as a secret ({algorithm}, {number})": signed(
                    lambda text, secret=secret, algorithm=algorithm: hmac.new(secret, text, f"sha{algorithm[2:]}").digest(),  # type: ignore[misc]
                    {**self.header, "alg": algorithm},
                    self.claims(),
                )
                for number, secret in enumerate(self._public_bytes())
                for algorithm in ("HS256", "HS512")
            },
            **{
                f"{name} left out": self.token(**{name: LEFT_OUT})
                for name in ("iss", "aud", "exp", "iat", "sub", "client_id", "jti")
            },
        }

    def _public_bytes(self) -> list[bytes]:
        public = self.key.public_key()
        return [
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
            orjson.dumps(self.jwk),
        ]


def _flipped(text: str) -> str:
    return ("B" if text[0] == "A" else "A") + text[1:]

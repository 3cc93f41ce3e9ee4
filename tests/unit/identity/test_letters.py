"""Letters open for whoever holds the key and nobody else, and invitations' tokens outlive the master key."""

import base64

import orjson
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from libs.common.settings import SettingsError
from services.identity.api.desk import Desk
from services.identity.api.letters import Letters, named
from services.identity.api.passwords import Passwords
from services.identity.domain.invitation import digest_of, invite
from tests.shared.letters import opened
from tests.unit.memory import NOW, TENANT

WRITER, STRANGER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


def _jwk(key: ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey) -> str:
    return orjson.dumps({**ECAlgorithm.to_jwk(key, as_dict=True), "kid": "letters-1"}).decode()


def test_a_letter_says_to_whom_and_with_which_token_and_opens_for_its_writer_alone() -> None:
    desk = Desk(bytes(32), Letters.read(_jwk(WRITER.public_key())))
    token, letter = desk.token(TENANT, TENANT, "ada@shop.test")
    assert letter is not None
    told = opened(letter, WRITER)
    assert orjson.loads(base64.urlsafe_b64decode(letter.split(".")[0] + "=="))["kid"] == "letters-1"
    assert (told["to"], told["tenant_id"], digest_of(told["token"])) == ("ada@shop.test", str(TENANT), token.digest)
    with pytest.raises(InvalidTag):
        opened(letter, STRANGER)
    again = desk.token(TENANT, TENANT, "ada@shop.test")[1]
    assert again is not None
    assert again.split(".")[0] != letter.split(".")[0], "no two have a key in common"
    assert Desk(bytes(32)).token(TENANT, TENANT, "ada@shop.test")[1] is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "[]", "{}", '{"kty":"EC"}', _jwk(WRITER)),
        orjson.dumps(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP384R1()).public_key(), as_dict=True)).decode(),
    ],
)
def test_what_is_no_public_key_on_p256_keeps_the_process_from_starting(text: str) -> None:
    with pytest.raises(SettingsError, match="CARTWRIGHT_LETTERS_KEY is the JWK of a public key on P-256"):
        Letters.read(text)


def test_a_token_is_shown_again_under_its_own_master_key_and_only_where_that_is_allowed() -> None:
    desk = Desk(bytes(32), shows_tokens=True)
    token, _ = desk.token(TENANT, TENANT, "a@shop.test")
    invitation = invite(TENANT, TENANT, "a@shop.test", ["viewer"], token, NOW)
    shown = desk.shown(invitation)
    assert shown is not None
    found = named(shown)
    assert found is not None
    assert (found.tenant_id, found.invitation_id, found.digest) == (TENANT, TENANT, invitation.digest)
    assert Desk(bytes(32)).shown(invitation) is None
    assert Desk(b"m" * 32, shows_tokens=True).shown(invitation) is None, "and it is as good as before"
    assert [named(text) for text in ("", f"{shown}x", shown[:-1], shown.replace("inv_", "rt_"))] == [None] * 4


async def test_a_password_is_known_again_by_its_hash_and_nobodys_is_nobodys() -> None:
    passwords = Passwords()
    kept = await passwords.hash("correct horse battery staple")
    assert kept.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert kept != await passwords.hash("correct horse battery staple"), "two people may have the same"
    assert await passwords.matches(kept, "correct horse battery staple")
    assert not await passwords.matches(kept, "correct horse battery stapl")
    assert not await passwords.matches(None, "correct horse battery staple")

import os

import pytest

from libs.common.sealing import MasterKey, MasterKeys, SealError, decode_key

OLD, NEW, STRANGER = (MasterKey(os.urandom(32)) for _ in range(3))
SECRET = "sk_live_canary_4242"
PLACE = "tenant-1/provider_account/stripe"


def test_a_secret_opens_in_its_own_row_and_column_alone() -> None:
    data_key, envelope = MasterKeys(OLD).new_data_key(PLACE)
    sealed = data_key.seal(SECRET, "api_key")
    assert SECRET.encode() not in sealed
    assert sealed != data_key.seal(SECRET, "api_key"), "the same secret never looks the same"
    opened = MasterKeys(OLD).open(envelope, PLACE)
    assert opened.open(sealed, "api_key") == SECRET
    with pytest.raises(SealError):
        opened.open(sealed, "webhook_secret")
    with pytest.raises(SealError):
        MasterKeys(OLD).open(envelope, PLACE.replace("1", "2"))
    other, _ = MasterKeys(OLD).new_data_key(PLACE.replace("1", "2"))
    with pytest.raises(SealError):
        other.open(sealed, "api_key")


@pytest.mark.parametrize("position", [0, 11, 12, 20, -1])
def test_one_changed_bit_and_it_does_not_open(position: int) -> None:
    data_key, _ = MasterKeys(OLD).new_data_key(PLACE)
    sealed = bytearray(data_key.seal(SECRET, "api_key"))
    sealed[position] ^= 1
    with pytest.raises(SealError) as refusal:
        data_key.open(bytes(sealed), "api_key")
    assert SECRET not in str(refusal.value)
    for short in (b"", bytes(sealed[:12]), bytes(sealed[:20])):
        with pytest.raises(SealError):
            data_key.open(short, "api_key")


def test_a_rotation_wraps_the_key_anew_and_leaves_what_it_sealed_as_it_is() -> None:
    data_key, envelope = MasterKeys(OLD).new_data_key(PLACE)
    sealed = data_key.seal(SECRET, "api_key")
    both = MasterKeys(NEW, OLD)
    assert both.open(envelope, PLACE).open(sealed, "api_key") == SECRET, "nothing stands still meanwhile"
    rewrapped = both.rewrap(envelope, PLACE)
    assert rewrapped.master_key_id == NEW.id != OLD.id
    assert MasterKeys(NEW).open(rewrapped, PLACE).open(sealed, "api_key") == SECRET
    for keys in (MasterKeys(OLD), MasterKeys(STRANGER)):
        with pytest.raises(SealError, match=NEW.id):
            keys.open(rewrapped, PLACE)


def test_a_master_key_shows_itself_nowhere_and_is_32_bytes() -> None:
    assert OLD.secret.hex() not in repr(OLD) + OLD.id
    assert repr(OLD.secret) not in repr(OLD)
    for wrong in ("", "c2hvcnQ=", "not base64!", "A" * 43):
        with pytest.raises(ValueError, match="32 random bytes"):
            decode_key(wrong)

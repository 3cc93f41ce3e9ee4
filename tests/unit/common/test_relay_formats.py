"""What the relay computes for itself must be what everybody else computes."""

import random

import pytest
from aiokafka.partitioner import murmur2

from libs.common.messaging.headers import UnreadableHeadersError, pack, unpack
from libs.common.messaging.relay.partitions import murmurs


def test_keys_hashed_together_have_the_hashes_they_have_alone() -> None:
    chance = random.Random(7)
    keys = [chance.randbytes(chance.randrange(80)) for _ in range(3_000)] + [b"", b"a", b"\xff" * 73]
    assert murmurs(keys) == {key: murmur2(key) & 0x7FFFFFFF for key in keys}


@pytest.mark.parametrize("headers", [[("a", "1"), ("b", "ü")], [("a", "1")], [("a", ""), ("b", "")], [("a", "line\nbreak")]])
def test_headers_are_read_as_they_were_written(headers: list[tuple[str, str]]) -> None:
    assert unpack(pack(headers)) == [(name, value.encode()) for name, value in headers]


def test_headers_of_the_first_release_are_still_read() -> None:
    assert unpack(b'[["ce_id","1"],["ce_type","x"]]') == [("ce_id", b"1"), ("ce_type", b"x")]


@pytest.mark.parametrize("stored", [b"[", b"[1]", b"a,b\n1", b"", b'{"a":1}', b"\xff\n1"])
def test_what_cannot_be_read_is_named_and_breaks_nothing(stored: bytes) -> None:
    with pytest.raises(UnreadableHeadersError):
        unpack(stored)

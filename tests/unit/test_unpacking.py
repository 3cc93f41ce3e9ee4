"""What a batch may unpack to, and what a fetch's answer is taken for."""

import gzip
import struct
import tracemalloc
from collections.abc import Callable

import cramjam
import pytest
from aiokafka.codec import snappy_encode
from aiokafka.record.util import calc_crc32c

from libs.common.messaging.reading.batches import taken
from libs.common.messaging.reading.notes import Nothing, Unreadable, note_of
from libs.common.messaging.reading.unpacking import UnpackError, unpacked
from tests.shared.batches import GZIP, LZ4, SNAPPY, ZSTD, batch, record

LIMIT = 1_000_000
PLENTY = 1 << 30


def _lz4(plain: bytes) -> bytes:
    return bytes(cramjam.lz4.compress(plain))


def _zstd(plain: bytes) -> bytes:
    return bytes(cramjam.zstd.compress(plain))


def _snappy_block(plain: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(plain))


Pack = Callable[[bytes], bytes]
CODECS = pytest.mark.parametrize(
    ("codec", "pack"),
    [(GZIP, gzip.compress), (SNAPPY, snappy_encode), (SNAPPY, _snappy_block), (LZ4, _lz4), (ZSTD, _zstd)],
    ids=["gzip", "snappy-stream", "snappy-block", "lz4", "zstd"],
)


@CODECS
def test_what_was_packed_is_unpacked_up_to_the_last_byte_that_is_allowed(codec: int, pack: Pack) -> None:
    plain = bytes(range(256)) * 100
    packed = memoryview(pack(plain))
    assert unpacked(codec, packed, len(plain)) == plain
    with pytest.raises(UnpackError, match="more than"):
        unpacked(codec, packed, len(plain) - 1)


@CODECS
def test_a_bomb_takes_no_more_memory_than_is_allowed(codec: int, pack: Pack) -> None:
    packed = memoryview(pack(bytes(20 * LIMIT)))
    tracemalloc.start()
    try:
        with pytest.raises(UnpackError, match="more than"):
            unpacked(codec, packed, LIMIT)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Beside what is unpacked, the packed bytes are copied once.
    assert most < 4 * LIMIT + 2 * len(packed)


@CODECS
def test_what_is_no_such_stream_is_refused_and_so_is_one_that_is_cut_off(codec: int, pack: Pack) -> None:
    for broken in (b"", b"no stream of anybody's", pack(bytes(range(256)) * 100)[:-10]):
        with pytest.raises(UnpackError):
            unpacked(codec, memoryview(broken), LIMIT)


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(UnpackError, match="codec 5"):
        unpacked(5, memoryview(b"x"), LIMIT)


def _offsets(answer: bytes, end: int, room: int = PLENTY) -> list[object]:
    return [note_of(each) or each.offset for found in taken(answer, 0, end, room).batches for each in found]


def _at(offset: int, made: bytes) -> bytes:
    return offset.to_bytes(8, "big") + made[8:]


def test_a_batch_that_breaks_inside_hides_neither_what_is_before_nor_what_is_after() -> None:
    bad = batch([record(0), record(1, headers=[(b"\xff", b"")])])
    answer = batch([record(0)]) + _at(1, bad) + _at(3, batch([record(0), record(1)]))
    first, note, *rest = _offsets(answer, 5)
    assert (first, rest) == (0, [3, 4])
    assert isinstance(note, Unreadable)
    assert (note.first, note.last) == (1, 2)


@pytest.mark.parametrize("delta", [-1, 5, 1 << 30], ids=["before", "behind", "far"])
def test_a_record_that_claims_an_offset_outside_its_batch_moves_nobody(delta: int) -> None:
    answer = _at(7, batch([record(delta)])) + _at(8, batch([record(0)]))
    note, good = _offsets(answer, 9)
    assert isinstance(note, Unreadable)
    assert good == 8


def test_a_batch_of_too_many_records_or_headers_is_not_unfolded() -> None:
    crowd = batch([record()] * 100_001, GZIP, gzip.compress)
    letter = batch([record(blank=1_000_001)], GZIP, gzip.compress)
    answer = crowd + _at(100_001, letter) + _at(100_002, batch([record(0)]))
    many, much, good = _offsets(answer, 100_003)
    assert isinstance(many, Unreadable)
    assert (many.first, many.last) == (0, 100_000)
    assert isinstance(much, Unreadable)
    assert good == 100_002


def test_no_more_is_unpacked_than_there_is_room_for_but_always_one_batch() -> None:
    large = batch([record(0, value=bytes(LIMIT))], GZIP, gzip.compress)
    answer = large + _at(1, large) + _at(2, large)
    assert _offsets(answer, 3) == [0, 1, 2]
    assert _offsets(answer, 3, room=LIMIT + LIMIT // 2) == [0, 1]
    assert _offsets(answer, 3, room=1) == [0]


def test_damage_is_told_only_when_it_comes_first() -> None:
    good, damaged = batch([record(0)]), _at(1, batch([record(0)])[:-1] + b"x")
    found = taken(good + damaged, 0, 2, PLENTY)
    assert (len(found.batches), found.damage) == (1, None)
    assert taken(damaged, 1, 2, PLENTY).damage == "its checksum is wrong"
    beyond = taken(_at(1 << 40, good), 1, 2, PLENTY)
    assert beyond.damage
    assert "not between 1 and 2" in beyond.damage


def test_an_answer_that_ends_with_a_transactions_marker_says_how_far_it_goes() -> None:
    marker = bytearray(_at(1, batch([record(0, key=bytes(4))])))
    fields = memoryview(marker)
    fields[22] |= 0x30  # transactional, control
    struct.pack_into(">I", marker, 17, calc_crc32c(bytes(marker[21:])))
    assert _offsets(batch([record(0)]) + bytes(marker), 2) == [0, Nothing(1)]


def test_nobody_outside_can_write_a_note() -> None:
    [batch_] = taken(batch([record(0, key=b"cartwright-note:" + bytes(16))]), 0, 1, PLENTY).batches
    [found] = list(batch_)
    assert note_of(found) is None

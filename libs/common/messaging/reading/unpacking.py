"""Undo a batch's compression, and stop where it becomes too much: a megabyte of gzip holds a gigabyte of zeros.

Every codec writes into no more room than is left. What it allocates beside that (a window, a dictionary) is bounded by
its own format.
"""

import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Final

import cramjam

MAX_BATCH_BYTES: Final = 16_777_216
"""What one batch may unpack to. A broker takes a megabyte of records from a publisher; JSON shrinks to a tenth or so."""

GZIP_WINDOW: Final = 31
XERIAL: Final = b"\x82SNAPPY\0"
XERIAL_HEADER_BYTES: Final = 16


class UnpackError(ValueError):
    """This is not what the codec's name says, or too much of it."""


def unpacked(codec: int, packed: memoryview, limit: int = MAX_BATCH_BYTES) -> bytes:
    """The bytes that were compressed. Raises UnpackError."""
    try:
        return CODECS[codec](packed, limit)
    except KeyError as error:
        raise UnpackError(f"codec {codec} is unknown") from error
    except (zlib.error, struct.error, cramjam.DecompressionError) as error:
        raise UnpackError(f"codec {codec}: {error}") from error


def _too_much(limit: int) -> UnpackError:
    return UnpackError(f"unpacks to more than {limit} bytes")


def _gunzipped(packed: memoryview, limit: int) -> bytes:
    member = zlib.decompressobj(GZIP_WINDOW)
    found = member.decompress(packed, limit + 1)
    if len(found) > limit:
        raise _too_much(limit)
    if not member.eof:  # what follows is ignored, as Java does
        raise UnpackError("gzip: cut off")
    return found


def _into(decompress_into: Callable[[memoryview, bytearray], int], packed: memoryview, limit: int) -> bytes:
    room = bytearray(limit)  # of zeros: no memory is taken for what is not written
    try:
        count = decompress_into(packed, room)
    except cramjam.DecompressionError as error:
        raise _too_much(limit) if "whole buffer" in str(error) else error from error
    return bytes(memoryview(room)[:count])


def _unsnapped(packing: memoryview, limit: int) -> bytes:
    """One block, or those of Java's stream: each says beforehand how long it becomes."""
    packed = bytes(packing)
    if not packed.startswith(XERIAL):
        return _block(packed, limit)
    found, at = bytearray(), XERIAL_HEADER_BYTES
    while at < len(packed):
        (size,) = struct.unpack_from(">i", packed, at)
        at += 4
        if not 0 < size <= len(packed) - at:
            raise UnpackError("snappy: a block is cut off")
        found += _block(packed[at : at + size], limit - len(found))
        at += size
    return bytes(found)


def _block(packed: bytes, limit: int) -> bytes:
    if cramjam.snappy.decompress_raw_len(packed) > limit:
        raise _too_much(limit)
    return bytes(cramjam.snappy.decompress_raw(packed))


CODECS: Final[Mapping[int, Callable[[memoryview, int], bytes]]] = {
    1: _gunzipped,
    2: _unsnapped,
    3: lambda packed, limit: _into(cramjam.lz4.decompress_into, packed, limit),
    4: lambda packed, limit: _into(cramjam.zstd.decompress_into, packed, limit),
}
"""By the number that a batch's attributes give."""

"""JSON that everybody reads alike, and text that can be kept."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.json_text import NotJsonError, is_keepable, read_leniently, read_strictly, unkeepable

TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('":\\ \t\r\n{}[]'))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
)


@given(JSON, st.sampled_from([None, 1]))
def test_whatever_is_written_once_is_read(value: object, indent: int | None) -> None:
    assert read_strictly(json.dumps(value, indent=indent).encode()) == value
    assert read_strictly(orjson.dumps(value)) == value
    assert not [*unkeepable(value)] or "\0" in json.dumps(value).replace("\\u0000", "\0")


@given(st.dictionaries(TEXT, JSON, min_size=1, max_size=4), st.sampled_from(["", " ", "\t\r\n"]))
def test_a_member_that_is_there_twice_is_refused_however_it_is_written(value: dict[str, object], space: str) -> None:
    name = json.dumps(next(iter(value)))
    twice = f"{json.dumps(value)[:-1]},{space}{name}{space}:{space}0}}"
    for text in (twice, f"[{twice}]", f'{{"a": [{twice}]}}'):
        with pytest.raises(NotJsonError, match="twice"):
            read_strictly(text.encode())


@pytest.mark.parametrize("text", [b"", b"{", b"NaN", b"[-Infinity]", b'"\\ud800"', b'"\xff"', b"[" * 100_000, b"1 2"])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(NotJsonError, match="not JSON"):
        read_strictly(text)


def test_what_the_grammar_allows_is_read_leniently_and_each_text_that_cannot_be_kept_is_named() -> None:
    value = read_leniently(b'{"a":["\\ud800",{"b/c~":"x\\u0000"}],"\\udfffk":1,"ok":"\\ud83c\\udf75"}')
    assert [*unkeepable(value)] == ["/a/0", "/a/1/b~1c~0", "/\\udfffk"]
    assert is_keepable(value["ok"])
    for text in (b"NaN", b"{", b"[" * 100_000, b'"\xff"'):
        with pytest.raises(NotJsonError, match="not JSON"):
            read_leniently(text)

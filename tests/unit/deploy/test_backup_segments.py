"""Which base backup and which of the log's files a moment needs, and which nobody needs any more."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from deploy.backup.segments import PARTIAL, Base, base_for, following, run_from, superfluous, superfluous_segments

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
MIB_16, GIB = 16 << 20, 1 << 30


def _base(hours_ago: float) -> Base:
    number = int(1000 - hours_ago * 10)
    return Base(
        ended_at=NOW - timedelta(hours=hours_ago),
        series="7-00000001",
        name=f"{number}",
        first_segment=f"00000001{number:016X}",
        segment_bytes=MIB_16,
        server_version=18,
    )


def test_segments_are_counted_within_a_log_and_then_in_the_next() -> None:
    assert following("000000010000000000000001", MIB_16) == "000000010000000000000002"
    assert following("0000000200000000000000FF", MIB_16) == "000000020000000100000000"
    assert following("0000000A0000001F00000003", GIB) == "0000000A0000002000000000"


def test_a_run_ends_at_the_first_gap_and_with_a_part_at_most() -> None:
    first = "0000000100000000000000FE"
    second, third = following(first, MIB_16), following(following(first, MIB_16), MIB_16)
    assert [*run_from(first, {first, second, third + PARTIAL}, MIB_16)] == [first, second, third + PARTIAL]
    assert [*run_from(first, {first, third}, MIB_16)] == [first]
    assert [*run_from(first, {first + PARTIAL, second}, MIB_16)] == [first + PARTIAL]
    assert [*run_from(first, {second, third}, MIB_16)] == []


@given(
    ages=st.lists(st.floats(min_value=0, max_value=90, allow_nan=False), unique_by=lambda age: int(age * 10)),
    keep=st.floats(0, 90),
)
def test_after_pruning_every_moment_that_is_kept_has_the_base_and_the_log_it_had(ages: list[float], keep: float) -> None:
    bases = sorted(_base(age) for age in ages)
    gone = superfluous(bases, NOW, timedelta(hours=keep))
    kept = [base for base in bases if base not in gone]
    for hours_ago in (0.0, keep / 2, keep):
        moment = NOW - timedelta(hours=hours_ago)
        needed = base_for(bases, moment)
        assert base_for(kept, moment) == needed
        if needed:
            assert needed.first_segment not in superfluous_segments([base.first_segment for base in bases], kept)
    assert base_for(kept, None) == base_for(bases, None)
    assert not any(base.ended_at > NOW - timedelta(hours=keep) for base in gone)
    older = [base for base in kept if base.ended_at <= NOW - timedelta(hours=keep)]
    assert len(older) <= 1, "of those that are older than what is kept one is enough"

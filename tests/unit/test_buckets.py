from libs.common.buckets import TokenBuckets


def test_each_key_has_its_burst_and_then_what_comes_back() -> None:
    buckets = TokenBuckets(0.5, 2, kept=10)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [0, 0, 2.0]
    assert buckets.take("b", 0.0) == 0
    assert buckets.take("a", 1.0) == 1.0
    assert buckets.take("a", 2.0) == 0
    assert [buckets.take("a", 1_000.0) for _ in range(3)] == [0, 0, 2.0]


def test_only_so_many_are_kept_and_the_longest_unused_is_forgotten_first() -> None:
    buckets = TokenBuckets(0.001, 1, kept=2)
    assert [buckets.take(key, 0.0) for key in "aba"] == [0, 0, 1_000.0]
    assert buckets.take("c", 0.0) == 0
    assert buckets.take("a", 0.0) > 0
    assert buckets.take("b", 0.0) == 0

"""Buckets: every length and batch has one, and rows share them."""

from __future__ import annotations

from ipr_engine.cuda.buckets import Bucket, make_buckets, plan_passes


def test_buckets_cover_every_length_and_batch():
    assert make_buckets(256, (8, 1))[0] == Bucket(batch=1, tokens=16)
    assert [bucket.tokens for bucket in make_buckets(256, (1,))] == [16, 32, 64, 128, 256]
    assert [str(bucket) for bucket in make_buckets(20, (2,))] == ["2 x 16", "2 x 20"]
    assert [bucket.tokens for bucket in make_buckets(16, (1,))] == [16]


def test_every_row_passes_once_in_a_bucket_that_holds_it_and_rows_ride_along(rng):
    buckets = make_buckets(256, (1, 8, 32))
    for rows in (0, 1, 2, 9, 33, 100):
        lengths = sorted(rng.integers(1, 257, rows).tolist(), reverse=True)
        passes = plan_passes(lengths, buckets)
        assert [row for step in passes for row in range(step.begin, step.end)] == list(range(rows))
        for step in passes:
            bucket = buckets[step.bucket]
            assert bucket.tokens >= lengths[step.begin]
            assert step.end - step.begin <= bucket.batch
    (only,) = plan_passes([200, 9, 8, 7], make_buckets(256, (8,)))
    assert (only.begin, only.end) == (0, 4)
    assert [str(buckets[step.bucket]) for step in plan_passes([200, 9, 8, 7], buckets)] == ["1 x 256", "8 x 16"]

"""Histograms of durations: what goes in comes out, and percentiles are within their bucket."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djcelery.managers.history import BOUNDS_S, Histogram
from tests.strategies import quick

durations = st.lists(st.floats(0, 10_000), max_size=50)


def histogram(*values):
    made = Histogram()
    for value in values:
        made.add(value)
    return made


def test_each_bound_belongs_to_its_bucket():
    assert histogram(*BOUNDS_S).counts == {n: 1 for n in range(len(BOUNDS_S))}
    assert histogram(0).counts == {0: 1}
    assert histogram(3600.1, 1e12).counts == {len(BOUNDS_S): 2}


@given(durations)
@quick
def test_what_is_dumped_loads_as_the_same(values):
    made = histogram(*values)
    assert Histogram.load(made.dump()).counts == made.counts
    assert made.total == len(values)


def test_the_dump_is_sparse_and_in_order():
    assert histogram(0.7, 0.0005, 0.6, 99999).dump() == "0:1,9:2,20:1"
    assert Histogram().dump() == ""


@pytest.mark.parametrize("text", ["", "x", "1", "1:", ":3", "1:-2", "99:1", "1:2:3"])
def test_what_nobody_has_dumped_counts_nothing(text):
    assert Histogram.load(text).total == 0


@given(durations, durations)
@quick
def test_merging_counts_what_both_have_counted(one, other):
    merged = histogram(*one)
    merged.merge(histogram(*other))
    assert merged.counts == histogram(*one, *other).counts


@given(durations.filter(bool), st.floats(0, 1))
@quick
def test_a_percentile_is_in_the_bucket_of_the_true_one(values, fraction):
    values = [min(value, 3600) for value in values]
    found = histogram(*values).percentile(fraction)
    wanted = fraction * len(values)
    true = next(value for number, value in enumerate(sorted(values), 1) if number >= wanted)
    bucket = bisect_left(BOUNDS_S, true)
    low = BOUNDS_S[bucket - 1] if bucket else 0.0
    assert low <= found <= BOUNDS_S[bucket]


def test_percentiles_are_interpolated_within_a_bucket():
    made = histogram(*[0.3] * 10)
    assert made.percentile(0.5) == pytest.approx(0.375)
    assert made.percentile(1) == pytest.approx(0.5)
    assert made.percentile(0) == pytest.approx(0.25)


def test_nothing_has_no_percentile_and_what_is_beyond_the_last_bound_has_that():
    assert Histogram().percentile(0.5) is None
    assert histogram(9999, 99999).percentile(0.5) == 3600

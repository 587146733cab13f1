"""Values of every kind, for property tests."""

from __future__ import annotations

import datetime

from hypothesis import settings
from hypothesis import strategies as st

UTC = datetime.timezone.utc
quick = settings(max_examples=150)

texts = st.text(max_size=12) | st.sampled_from(["\x00", "\udc80", "😀", "NaN", "\\u0000", 'a"[{', "...", "(***)"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**20, max_value=10**40)
    | st.floats()
    | texts
    | st.decimals()
    | st.uuids()
    | st.binary(max_size=8)
    | st.datetimes(timezones=st.just(UTC) | st.none())
    | st.dates()
    | st.times()
)
keys = texts | st.integers() | st.none() | st.booleans() | st.floats() | st.tuples(st.integers())
anything = st.recursive(
    scalars
    | st.sets(st.integers(), max_size=3)
    | st.builds(object)
    | st.builds(lambda: 10**5000)
    | st.just(ValueError("x")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=20,
)

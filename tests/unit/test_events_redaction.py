"""What of an event's text is stored when the setting hides a part of it: what can't be taken apart is hidden whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djcelery.snapshot.redaction import REDACTED, shown
from tests.strategies import quick

PASSWORD = frozenset({"kwargs.password"})
SECOND = frozenset({"args.1"})


@pytest.mark.parametrize(
    "text",
    [
        "{[]: 1}",
        "{{}}",
        "{{}: 'hunter2'}",
        f"(0x{'f' * 5000}, 1)",
        f"{{'password': 'hunter2', 'n': 0x{'f' * 5000}}}",
        "{'password': 'hunter2', ...}",
        "{'password': 'hunter2', 'user': <User: 1>}",
        "({'password': 'hunter2'},)",
        "'hunter2'",
        "",
        "(" * 5000,
        "-" * 100_000 + "1",
        "{'password': '\x00'}",
    ],
)
def test_keyword_arguments_that_cannot_be_taken_apart_are_hidden_whole(text):
    found = shown("kwargs", text, PASSWORD)
    assert found == REDACTED


@pytest.mark.parametrize(
    "text", [f"(0x{'f' * 5000}, 1)", "[[], {{}}]", "{'1': 'hunter2'}", "{[]: 1}", "('a', <b>)", "7"]
)
def test_arguments_that_cannot_be_taken_apart_are_hidden_whole(text):
    assert shown("args", text, SECOND) == REDACTED


def test_one_item_is_hidden_and_the_others_stay():
    assert shown("kwargs", "{'user': 'me', 'password': 'x'}", PASSWORD) == "{'user': 'me', 'password': '[redacted]'}"
    assert shown("kwargs", "{'user': 'me'}", PASSWORD) == "{'user': 'me'}"
    assert shown("args", "('me', 'x', 3)", SECOND) == "('me', '[redacted]', 3)"
    assert shown("args", "['me', 'x']", SECOND) == "['me', '[redacted]']"
    assert shown("args", "('me',)", SECOND) == "('me',)"


@quick
@given(st.text(alphabet="{}[]():,'\"01x<>.-_ a\\pasword\x00\ud800", max_size=60))
def test_no_text_whatever_is_in_it_raises(text):
    for column, names in (("args", SECOND), ("kwargs", PASSWORD)):
        assert isinstance(shown(column, text, names), str)

"""What an event shows of arguments is read as literals, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djcelery.admin.resend import NotSent, recovered
from djcelery.models import TaskMeta, TaskState
from tests.strategies import anything, quick


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("(1, 'two', None)", [1, "two", None]),
        ("[]", []),
        ("()", []),
        ("(u'old', b'bytes', (1, [2.5, {'a': True}]))", ["old", b"bytes", (1, [2.5, {"a": True}])]),
    ],
)
def test_literals_are_read_back(text, value):
    assert recovered("args", TaskState(args=text), None) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "not known"),
        ("", "not known"),
        ("(1, ...)", "cut"),
        ("['aaaa...']", "cut"),
        ("('aa…',)", "cut"),
        ("(" + "1," * 100_000 + ")", "cut"),
        ("('***',)", "hidden"),
        ("('[redacted]',)", "hidden"),
        ("(<hidden>,)", "hidden"),
        ("(<User: bob>,)", "can't be read back"),
        ("__import__('os').system('true')", "can't be read back"),
        ("[x for x in (1,)]", "can't be read back"),
        ("open('/etc/passwd')", "can't be read back"),
        ("(" * 5000, "can't be read back"),
        ("1 + 1", "can't be read back"),
        ("'text'", "can't be read back"),
        ("{'a': 1}", "can't be read back"),
        ("({1, 2},)", "can't be read back"),
        ("({1: 2},)", "can't be read back"),
        ("(1e999,)", "can't be read back"),
        ("(1j,)", "can't be read back"),
        ("(1,\x00)", "can't be read back"),
    ],
)
def test_what_is_no_plain_literal_is_refused(text, said):
    with pytest.raises(NotSent, match=said):
        recovered("args", TaskState(args=text), None)


def test_keyword_arguments_have_texts_as_keys():
    assert recovered("kwargs", TaskState(kwargs="{'a': [1]}"), None) == {"a": [1]}
    for text in ("[]", "{1: 2}", "None"):
        with pytest.raises(NotSent, match="can't be read back"):
            recovered("kwargs", TaskState(kwargs=text), None)


def test_the_stored_result_knows_better_than_the_event():
    row = TaskState(args="('...',)", kwargs=None)
    result = TaskMeta(args=[1, "two"], kwargs={"a": None})
    assert recovered("args", row, result) == [1, "two"]
    assert recovered("kwargs", row, result) == {"a": None}


def test_a_result_without_arguments_leaves_it_to_the_event():
    assert recovered("args", TaskState(args="(1,)"), TaskMeta()) == [1]


@pytest.mark.parametrize(
    ("flag", "said"),
    [("args_redacted", "hidden"), ("args_cut", "too long"), ("args_repr", "changed"), ("args_escaped", "changed")],
)
def test_a_flag_on_either_row_is_a_refusal(flag, said):
    for row, result in (
        (TaskState(args="(1,)", flags=flag), None),
        (TaskState(args="(1,)", flags=flag), TaskMeta(args=[1])),
        (TaskState(args="(1,)"), TaskMeta(args=[1], flags=f"result_cut {flag}")),
    ):
        with pytest.raises(NotSent, match=said):
            recovered("args", row, result)
        assert recovered("kwargs", TaskState(kwargs="{}", flags=flag), None) == {}


def test_a_result_that_stored_a_text_for_its_arguments_is_refused():
    with pytest.raises(NotSent, match="can't be read back"):
        recovered("args", TaskState(args="(1,)"), TaskMeta(args="(1,)"))


def written(value):
    try:
        return repr(value)
    except ValueError:  # a number of very many digits
        return ""


@given(st.text(max_size=40) | anything.map(written))
@quick
def test_no_text_raises_anything_but_a_refusal(text):
    try:
        value = recovered("args", TaskState(args=text), None)
    except NotSent:
        return
    assert isinstance(value, list)

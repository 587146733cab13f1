"""Stored values: what old pickles and other texts give back, and what the fields write."""

from __future__ import annotations

import base64
import collections
import datetime
import decimal
import fractions
import io
import pickle
import pickletools
import uuid
import zlib
import zoneinfo

import pytest
from celery.exceptions import Retry, TaskRevokedError
from celery.result import AsyncResult, EagerResult, GroupResult
from django.core.exceptions import ValidationError

from djcelery import picklefield
from djcelery.exceptions import ResultUndecodable
from djcelery.picklefield import (
    NO_DECOMPRESS_HEADER,
    PickledObject,
    PickledObjectField,
    Refused,
    StoredValueField,
    Unreadable,
    decode,
    decode_stored,
    encode,
    loads,
)
from tests.unit.pickles import assert_harmless, body, call, read

# -- what old pickles give back ------------------------------------------------------------------

# SCHEMA.md, part 7.
REFERENCE = [
    ("gAJLKi4=", 42),
    ("gAJOLg==", None),
    ("gAKILg==", True),
    ("gAJYBQAAAGhlbGxvcQAu", "hello"),
    ("gAJYBQAAAGhlbGxvcQEu", "hello"),
    ("gAJVBWhlbGxvcQEu", "hello"),
    ("gAJVBWhlbGxvcQAu", "hello"),
    ("gAJ9cQBYAQAAAGFxAV1xAihLAVgCAAAAw6lxA2VzLg==", {"a": [1, "é"]}),
    ("gAJ9cQFVAWFdcQIoSwFYAgAAAMOpZXMu", {"a": [1, "é"]}),
    ("gAJjZGF0ZXRpbWUKZGF0ZXRpbWUKcQFVCgfcBBMNLgAAAACFUnECLg==", datetime.datetime(2012, 4, 19, 13, 46)),
    ("gAJVBmJ5dGVz/3EBLg==", b"bytes\xff"),
    ("gAJjX2NvZGVjcwplbmNvZGUKcQBYAwAAAHJhd3EBWAYAAABsYXRpbjFxAoZxA1JxBC4=", b"raw"),
    ("eJxrYKotZIjgYGBgSM7IzEkpSs0rZPQr1gMASNQGew==", {"children": None}),
    ("eJxrYKotZAzlSM7IzEkpSs0rZPIr1gMAQ0gGeg==", {"children": None}),
    (
        "eJxrYKotZIjgYGBgSM7IzEkpSs0rZIwtZIpgAokYFjL7tRWyADFrYrEeAPPYC1M=",
        {"children": [(("c1", None), None)]},
    ),
    ("gAJ9cQBYCAAAAGNoaWxkcmVucQFOcy4=", {"children": None}),
]


@pytest.mark.parametrize(("text", "value"), REFERENCE, ids=lambda item: str(item)[:24])
def test_the_reference_values_read_back(text, value):
    read_back = decode_stored(text)
    assert (read_back, type(read_back)) == (value, type(value))
    assert decode(text, text.startswith("eJ")) == value


@pytest.mark.parametrize(
    "text",
    [
        "gAJjZXhjZXB0aW9ucwpLZXlFcnJvcgpxAFgEAAAAYm9vbXEBhXECUnEDLg==",
        "gAJjZXhjZXB0aW9ucwpLZXlFcnJvcgpxAVUEYm9vbXEChXEDUnEELg==",
    ],
)
def test_exceptions_of_the_reference_values_are_exceptions(text):
    error = decode_stored(text)
    assert (type(error), error.args) == (KeyError, ("boom",))


SHARED = ["shared"]
VALUES = [
    None,
    True,
    -1,
    10**30,
    1.5,
    float("inf"),
    2 + 3j,
    "täglich \U0001f600",
    b"\x00\xff",
    b"",
    bytearray(b"\x01\xff"),
    [1, [2, (3, {4}, frozenset([5]))]],
    {"a": {1: None, (1, 2): "x"}},
    [SHARED, SHARED],
    range(5),
    datetime.datetime(2015, 3, 1, 12, 30, 1, 5),
    datetime.datetime(2015, 3, 1, 12, 30, tzinfo=datetime.timezone.utc),
    datetime.datetime(2015, 3, 1, 12, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Brussels")),
    datetime.datetime(2015, 3, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=30))),
    datetime.date(2015, 3, 1),
    datetime.time(12, 30),
    datetime.timedelta(days=-1, microseconds=5),
    decimal.Decimal("12.50"),
    fractions.Fraction(1, 3),
    uuid.UUID("12345678123456781234567812345678"),
    collections.OrderedDict([("b", 1), ("a", 2)]),
    collections.defaultdict(list, {"a": [1]}),
    collections.Counter("abba"),
    collections.deque([1, 2], 5),
]


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}-{value}"[:40])
def test_every_value_type_comes_back_as_itself(value, protocol):
    for compress in (False, True):
        text = encode(value, compress, protocol)
        back = decode_stored(text)
        assert (back, type(back), repr(back)) == (value, type(value), repr(value))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("später", 1),
        OSError(2, "no file"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        ValidationError({"name": ["wrong"]}),
        TaskRevokedError("revoked"),
        Retry("later", ValueError("x"), 30),
        StopIteration(3),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_come_back_with_their_arguments(error):
    back = decode_stored(encode(error))
    assert type(back) is type(error)
    assert (str(back), repr(back)) == (str(error), repr(error))


def test_results_come_back_without_the_backend_they_were_pickled_with(celery_app):
    parent = AsyncResult("parent", app=celery_app)
    child = AsyncResult("child", parent=parent, app=celery_app)
    group = GroupResult("group", [child, parent], app=celery_app)
    back = decode_stored(encode(group))
    assert (back.id, [member.id for member in back.results]) == ("group", ["child", "parent"])
    assert back.results[0].parent.id == "parent"
    eager = decode_stored(encode(EagerResult("id", 3, "SUCCESS")))
    assert (eager.id, eager.get()) == ("id", 3)


def test_python_2_class_and_module_names_are_known():
    for name, value in {
        "__builtin__.set": {1, 2},
        "__builtin__.frozenset": frozenset([1, 2]),
        "exceptions.StandardError": Exception,
        "django.utils.safestring.SafeUnicode": "[1, 2]",
    }.items():
        back = read(call(name, [1, 2]))
        assert back == value or type(back) is value
    assert read(call("__builtin__.xrange", 3)) == range(3)
    assert read(b"\x80\x02U\x06na\xc3\xafve.") == "naïve"


def test_a_django_picklefield_wrapper_gives_what_it_holds():
    data = b"\x80\x02cpicklefield.fields\n_ObjectWrapper\n)\x81N}" + body("_obj") + body([1, 2]) + b"s\x86b."
    assert read(data) == [1, 2]


def test_a_subclass_of_a_plain_type_in_an_old_module_says_what_it_was():
    data = call("copy_reg._reconstructor", 1)
    assert_harmless(read(data))
    gone = read(b"\x80\x02cshop.gone\nThing\n)\x81}" + body("a") + body(1) + b"sb.")
    assert isinstance(gone, Refused)
    assert (gone.name, gone.state) == ("shop.gone.Thing", {"a": 1})


# -- texts that are no pickle --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ""),
        ("plain text", "plain text"),
        ('"gAJLKi4="', "gAJLKi4="),
        ("[1, 2]", [1, 2]),
        ("null", None),
        ("{", "{"),
        (None, None),
        (7, 7),
    ],
)
def test_other_texts_are_json_or_themselves(text, value):
    assert decode_stored(text) == value


@pytest.mark.parametrize(
    "text", ["gAJLKg==", "gAJ", "gA", "gA==", "eJxrYKot", "eJ", "gAJ!!!!", "gAL" + "A" * 50, "eJw" + "A" * 9]
)
def test_a_damaged_pickle_says_so(text):
    value = decode_stored(text)
    assert_harmless(value)
    assert "Not a stored pickle" in str(value)
    with pytest.raises(ResultUndecodable):
        decode(text, text.startswith("eJ"))


def test_every_truncation_of_a_pickle_is_harmless():
    data = pickle.dumps({"a": [1, (2, ValueError("x"))], "when": datetime.datetime(2015, 3, 1)}, 2)
    for end in range(1, len(data)):
        value = read(data[:end])
        assert isinstance(value, (Unreadable, str)), end


def test_every_single_changed_byte_is_harmless():
    data = pickle.dumps({"a": [1, (2, ValueError("x"))], "d": decimal.Decimal("1.5")}, 2)
    for place in range(2, len(data)):
        for byte in (0, 0x2E, 0x52, 0x62, 0x81, 0xFF):
            repr(read(data[:place] + bytes([byte]) + data[place + 1 :]))


# -- the fields ----------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("value", [{"a": [1, "é"]}, "text", "gAJLKi4=", 0, "", [], b"\xff"])
def test_a_pickled_field_gives_back_what_it_stored(value, compress):
    field = PickledObjectField(compress=compress, null=True)
    text = field.get_db_prep_value(value, None)
    assert isinstance(text, str)
    assert field.from_db_value(text, None, None) == value
    assert decode(text, compress) == value
    assert field.get_db_prep_value(PickledObject(text), None) == text
    assert field.get_db_prep_value(None, None) is None


def test_the_bytes_of_an_encoded_value_are_those_of_the_legacy_field():
    assert encode(42) == "gAJLKi4="
    assert zlib.decompress(base64.b64decode(encode({"children": None}, True))) == pickle.dumps({"children": None}, 2)
    assert pickletools.optimize(base64.b64decode(encode("hello")))[:2] == b"\x80\x02"


def test_a_value_behind_the_old_header_is_not_inflated():
    raw = NO_DECOMPRESS_HEADER + b"x"
    assert picklefield.maybe_decompress(raw, True) == raw
    assert picklefield.maybe_decompress(picklefield.maybe_compress(b"x" * 99, True), True) == b"x" * 99


def test_a_stored_value_is_json_and_a_type_that_json_lacks_is_an_error():
    field = StoredValueField(null=True)
    assert field.get_db_prep_value({"a": 1}, None) == '{"a": 1}'
    with pytest.raises(TypeError, match="set"):
        field.get_db_prep_value({1, 2}, None)


def test_neither_field_says_how_it_compresses_in_a_migration():
    for field in (PickledObjectField(compress=True, protocol=1, null=True), StoredValueField(null=True)):
        _, path, args, kwargs = field.deconstruct()
        assert path.startswith("djcelery.picklefield.")
        assert (args, kwargs) == ([], {"null": True, "editable": False})


def test_a_text_that_looks_encoded_is_a_value_like_any_other():
    from djcelery.models import TaskMeta

    row = TaskMeta(task_id="a", result="[1]", meta="gAJLKi4=", traceback="x")
    row.full_clean(validate_unique=False)
    assert (row.result, row.meta) == ("[1]", "gAJLKi4=")
    field = TaskMeta._meta.get_field("result")
    assert field.from_db_value(field.get_db_prep_save(row.meta, None), None, None) == "gAJLKi4="


def test_loads_is_for_pickles_and_raises_for_anything_else():
    assert loads(pickle.dumps([1], 2)) == [1]
    for data in (b"", b"no pickle", io.BytesIO(b"").getvalue()):
        with pytest.raises(ResultUndecodable, match="the pickle is broken"):
            loads(data)


def test_a_result_set_without_an_id_can_be_shown(celery_app):
    member = b"ccelery.result\nAsyncResult\nU\x01a\x85R"
    back = read(b"\x80\x02ccelery.result\nResultSet\n]" + member + b"a\x85R.")
    assert repr(back) == "<ResultSet: [a]>"
    assert_harmless(read(b"\x80\x02ccelery.result\nResultSet\nq\x00]h\x00]" + member + b"a\x85Ra\x85R."))

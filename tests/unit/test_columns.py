"""From requests and values to the columns of a row: queues, JSON, sizes, and what senders hide."""

from __future__ import annotations

import datetime
import enum
import json
import math
import time
import uuid
from decimal import Decimal
from types import SimpleNamespace

import pytest
from celery import Celery
from celery.app.task import Context
from celery.utils.saferepr import saferepr
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st
from kombu import Exchange, Queue
from kombu.serialization import dumps, loads
from kombu.utils import json as kombu_json

from djcelery.backends import columns, redaction, values
from djcelery.backends.columns import Columns
from tests.strategies import UTC, anything, quick


@pytest.fixture(scope="module")
def app():
    made = Celery("columns", set_as_current=False)
    yield made
    made.close()


def flagged(value):
    flags = []
    return values.as_json(value, flags.append), set(flags)


def depth(value):
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


# values as JSON


@quick
@given(anything)
def test_any_value_becomes_json_that_every_database_takes(value):
    encoded, _ = flagged(value)
    assert encoded.isascii()

    def refuse(constant):
        raise AssertionError(constant)

    decoded = json.loads(encoded, parse_constant=refuse)
    plain = json.dumps(decoded, ensure_ascii=False)
    plain.encode()
    assert "\\u0000" not in plain.replace("\\\\", "")
    assert depth(decoded) <= 31


@quick
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
        | st.decimals(allow_nan=False)
        | st.uuids()
        | st.binary(max_size=8)
        | st.datetimes(timezones=st.just(UTC) | st.none())
        | st.dates()
        | st.times(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4),
        max_leaves=20,
    )
)
def test_what_a_message_can_carry_comes_back_equal_and_unflagged(value):
    encoded, flags = flagged(value)
    assert flags == set()
    assert kombu_json.loads(encoded) == value


@quick
@given(anything, st.integers(min_value=2, max_value=400))
def test_a_capped_column_is_no_longer_than_the_limit(value, limit):
    with override_settings(DJCELERY_ARGS_MAX_BYTES=limit):
        found = Columns()
        encoded = columns.capped(found, "args", value)
    json.loads(encoded)
    assert len(encoded) <= limit
    assert ("args_cut" in found.flags) is (len(values.as_json(value)) > limit)


class Colour(str, enum.Enum):
    RED = "red"


class Bad:
    def __repr__(self):
        raise RuntimeError("no repr")


class BadJson:
    def __json__(self):
        raise RuntimeError("no JSON")


def circular():
    value = [1]
    value.append(value)
    value.append(value)
    return value


def nested(levels):
    value = "inmost"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "expected", "flags"),
    [
        ("nul \x00", "nul \\x00", {"escaped"}),
        ("lone \udc80", "lone \\udc80", {"escaped"}),
        ({"\x00": 1}, {"\\x00": 1}, {"escaped"}),
        ([math.nan, math.inf, -math.inf], ["nan", "inf", "-inf"], {"escaped"}),
        ("the word NaN", "the word NaN", set()),
        ("written \\u0000", "written \\u0000", set()),
        ("emoji 😀, 한국어", "emoji 😀, 한국어", set()),
        ((1, (2,)), [1, [2]], set()),
        ({1: "a", None: "b", False: "c"}, {"1": "a", "null": "b", "false": "c"}, set()),
        ({(1, 2): "a"}, {"(1, 2)": "a"}, {"repr"}),
        ({"keep": 1, "set": {2}}, {"keep": 1, "set": "{2}"}, {"repr"}),
        ([Colour.RED], ["red"], set()),
        ([10**5000, 7], [hex(10**5000)[:1024], 7], {"repr"}),
        ([BadJson(), 7], None, {"repr"}),
        (nested(30), nested(30), set()),
        (range(3), "range(0, 3)", {"repr"}),
    ],
)
def test_what_json_or_a_database_cannot_carry_is_written_so_that_a_person_understands_it(value, expected, flags):
    encoded, found = flagged(value)
    assert found == flags
    if expected is not None:
        assert json.loads(encoded) == expected


def test_values_without_a_repr_do_not_stop_the_storing():
    encoded, flags = flagged({"a": Bad(), "b": 1})
    assert json.loads(encoded)["b"] == 1
    assert "Bad" in json.loads(encoded)["a"]
    assert flags == {"repr"}


@pytest.mark.parametrize("value", [nested(31), nested(900), nested(100_000), {"a": [1, nested(40)]}])
def test_deep_values_end_as_text_where_a_database_would_refuse_them(value):
    encoded, flags = flagged(value)
    assert flags == {"repr"}
    assert depth(json.loads(encoded)) <= 31


def test_a_value_that_contains_itself_ends_as_text():
    encoded, flags = flagged({"a": circular(), "b": 2})
    assert json.loads(encoded)["b"] == 2
    assert flags == {"repr"}


# size


def test_long_items_are_cut_first_and_short_ones_stay():
    with override_settings(DJCELERY_ARGS_MAX_BYTES=400):
        found = Columns()
        encoded = columns.capped(found, "kwargs", {"order_id": 5, "body": "x" * 1000})
    assert json.loads(encoded)["order_id"] == 5
    assert json.loads(encoded)["body"].startswith("xxx")
    assert found.flags == ["kwargs_cut"]


def test_many_short_items_are_cut_as_a_whole():
    with override_settings(DJCELERY_ARGS_MAX_BYTES=100):
        found = Columns()
        encoded = columns.capped(found, "args", list(range(1000)))
    assert json.loads(encoded).startswith("[0, 1, 2")


@pytest.mark.parametrize("limit", [None, 0])
def test_without_a_limit_nothing_is_cut(limit):
    with override_settings(DJCELERY_ARGS_MAX_BYTES=limit):
        assert json.loads(columns.capped(Columns(), "args", ["x" * 100_000])) == ["x" * 100_000]


@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE"])
@pytest.mark.parametrize(
    "value", ["é\x00" * 500, ["😀"] * 500, KeyError("😀" * 500), {"exc_type": "X", "exc_message": "ü" * 999}]
)
def test_a_cut_payload_is_no_longer_than_the_limit(state, value):
    payload = columns.cut_payload(json.dumps, state, value, 300)
    assert len(payload) <= 300
    if state == "FAILURE":
        assert set(json.loads(payload)) >= {"exc_type", "exc_message"}


@override_settings(DJCELERY_RESULT_MAX_BYTES=2000)
def test_a_long_traceback_keeps_its_end():
    found = Columns()
    stored = columns.shown_traceback(found, "Traceback\n" + "x" * 2000 + "\nKeyError: 'last line'", frozenset())
    assert stored.startswith("[…]\n")
    assert stored.endswith("\nKeyError: 'last line'")
    assert len(stored) == 2000 + len("[…]\n")
    assert found.flags == ["traceback_cut"]


@override_settings(DJCELERY_RESULT_MAX_BYTES=10)
def test_a_small_limit_leaves_the_error_readable():
    assert columns.shown_traceback(Columns(), "x" * 1024, frozenset()) == "x" * 1024


# the queue


@pytest.fixture
def routed(app):
    media, events = Exchange("media", "topic"), Exchange("events", "fanout")
    app.conf.task_queues = [
        Queue("video", media, "media.video.#"),
        Queue("image", media, "media.image.*"),
        Queue("jpeg", media, "media.*.jpeg"),
        Queue("all", events, ""),
        Queue("direct", Exchange("direct", "direct"), "key"),
    ]
    app.amqp = app.amqp_cls(app) if isinstance(app.amqp_cls, type) else type(app.amqp)(app)
    return app


@pytest.mark.parametrize(
    ("exchange", "key", "queue"),
    [
        ("", "celery", "celery"),
        (None, None, None),
        (None, "celery", "celery"),
        ("direct", "key", "direct"),
        ("direct", "other", "other"),
        ("media", "media.video.mp4.hd", "video"),
        ("media", "media.video", "video"),
        ("media", "media.image.png", "image"),
        ("media", "media.image.png.x", "media.image.png.x"),
        ("media", "media.image.jpeg", "media.image.jpeg"),
        ("events", "", "all"),
        ("unknown", "key", "key"),
    ],
)
def test_the_queue_is_named_where_it_can_be_told(routed, exchange, key, queue):
    assert columns.queue_of(routed, exchange, key) == queue


def test_a_worker_that_consumes_one_of_two_queues_names_that_one(routed):
    routed.amqp.queues.select(["jpeg"])
    assert columns.queue_of(routed, "media", "media.image.jpeg") == "jpeg"


# times


def test_a_sender_whose_clock_is_ahead_does_not_send_in_the_future(app):
    request = Context({"id": "x", "task": "t", columns.SENT_HEADER: time.time() + 3600})
    request.djcelery_started = (time.time(), time.monotonic())
    row = columns.of_request(app, request, frozenset(), final=True)
    assert row["created"] == row["started"]
    assert 0 <= row["runtime"] < 10


@pytest.mark.parametrize("sent", ["soon", None, -1, [], {}])
def test_a_time_that_is_none_is_left_out(app, sent):
    row = columns.of_request(
        app, Context({"id": "x", "task": "t", columns.SENT_HEADER: sent}), frozenset(), final=False
    )
    assert "created" not in row


def test_a_request_made_by_hand_needs_no_attribute_at_all(app):
    assert columns.of_request(app, SimpleNamespace(), frozenset(), final=True) == {}


# what senders hide


def request_of(args, kwargs, **message):
    return Context({"id": "x", "task": "t", "args": args, "kwargs": kwargs, **message})


wire = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"), max_size=30),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text("abc", min_size=1), inner, max_size=5)
    ),
    max_leaves=40,
)
long_text = st.text("ab'\n\\é", min_size=300, max_size=1200)


@pytest.mark.long
@pytest.mark.parametrize("serializer", ["json", "pickle", "msgpack", "yaml"])
def test_what_celery_itself_wrote_hides_nothing(app, serializer):
    pytest.importorskip({"msgpack": "msgpack", "yaml": "yaml"}.get(serializer, "json"))

    @quick
    @given(
        st.lists(wire | long_text, max_size=6).map(tuple),
        st.dictionaries(st.text("xyz", min_size=1), wire | long_text, max_size=6),
    )
    def check(args, kwargs):
        try:
            content_type, encoding, body = dumps((args, kwargs), serializer)
            got_args, got_kwargs = loads(body, content_type, encoding, accept=[serializer])
        except Exception:  # noqa: BLE001 - the serializer can't carry it, so no such message exists
            return
        shown = {"argsrepr": saferepr(args, 1024, 3), "kwargsrepr": saferepr(kwargs, 1024, 3)}
        hidden = columns.hidden_arguments(app, request_of(got_args, got_kwargs, **shown))
        if serializer == "yaml" and max(map(len, shown.values())) > 500:
            # Sorted keys and a cut text together can't be told from another text; then it is taken for one.
            assert set(hidden.values()) <= set(shown.values())
        else:
            assert hidden == {}

    check()


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (
            (datetime.datetime(2026, 1, 2, tzinfo=UTC), Decimal("1.50"), uuid.uuid4(), b"x", datetime.date(2026, 1, 1)),
            {},
        ),
        ((), {"a": {1: "x", 2: ("y",)}}),
        (([[(1,)] * 400],), {"k": nested(6)}),
        (tuple((n,) for n in range(500)), {}),
        (("it's", 'a "quote"', "line\nbreak"), {"é": "ü" * 2000}),
    ],
)
def test_types_that_json_changes_hide_nothing(app, args, kwargs):
    content_type, encoding, body = dumps((args, kwargs), "json")
    got = loads(body, content_type, encoding)
    assert (
        columns.hidden_arguments(
            app, request_of(*got, argsrepr=saferepr(args, 1024), kwargsrepr=saferepr(kwargs, 1024))
        )
        == {}
    )


@pytest.mark.parametrize(
    "text", ["(***)", "...", "('...',)", "", "[]", "('secret', ...)", "x" * 2000, "(" + "." * 1100]
)
def test_a_text_of_the_senders_own_hides_the_value(app, text):
    request = request_of(["secret", "word " * 300], {"a": 1}, argsrepr=text, kwargsrepr="{'a': 1}")
    assert columns.hidden_arguments(app, request) == {"args": text}
    row = columns.of_request(app, request, frozenset(), final=True)
    assert json.loads(row["args"]) == text[:1024]
    assert row.flags == ["args_redacted"]
    assert json.loads(row["kwargs"]) == {"a": 1}


@pytest.mark.parametrize("noted", ["text", 5, ["args"], {"args": 5}])
def test_a_strange_note_of_the_sender_does_not_stop_the_storing(app, noted):
    request = request_of([1], {}, **{columns.SENT_HEADER: 1.0, columns.HIDDEN_HEADER: noted})
    json.loads(columns.of_request(app, request, frozenset(), final=True)["args"])


# what the project hides


@pytest.mark.parametrize(
    ("args", "kwargs", "redacted", "expected"),
    [
        ([1, 2], {"a": 3}, {"args"}, (None, {"a": 3}, ["args_redacted"])),
        ([1, 2], {"a": 3}, {"args.1", "args.7"}, ([1, "[redacted]"], {"a": 3}, ["args_redacted"])),
        (
            (1, 2),
            {"a": 3, "b": 4},
            {"kwargs.a", "kwargs.c"},
            ([1, 2], {"a": "[redacted]", "b": 4}, ["kwargs_redacted"]),
        ),
        ([1], {"a.b": 3}, {"kwargs.a.b"}, ([1], {"a.b": "[redacted]"}, ["kwargs_redacted"])),
        ("odd", {}, {"args.0"}, ("[redacted]", {}, ["args_redacted"])),
        ([1], {"a": 3}, {"kwargs.password"}, ([1], {"a": 3}, [])),
    ],
)
def test_redacted_items_are_replaced_and_flagged(app, args, kwargs, redacted, expected):
    row = columns.of_request(app, request_of(args, kwargs), frozenset(redacted), final=False)
    found = [None if row[name] is None else json.loads(row[name]) for name in ("args", "kwargs")]
    assert (*found, row.flags) == expected


def test_redacting_does_not_touch_the_callers_arguments(app):
    args, kwargs = ["secret"], {"password": "secret"}
    columns.of_request(app, request_of(args, kwargs), frozenset({"args.0", "kwargs.password"}), final=False)
    assert (args, kwargs) == (["secret"], {"password": "secret"})


def test_a_tasks_own_option_replaces_the_projects_setting(app):
    @app.task(name="open", shared=False, redact=[])
    def openly():
        """Hide nothing."""

    @app.task(name="closed", shared=False, redact=["args"])
    def closely():
        """Hide args."""

    with override_settings(DJCELERY_REDACT=["result"]):
        assert redaction.redacted_names(app, "open") == frozenset()
        assert redaction.redacted_names(app, "closed") == {"args"}
        assert redaction.redacted_names(app, "unknown") == {"result"}
        assert redaction.redacted_names(app, None) == {"result"}


@pytest.mark.parametrize("option", ["args", ["arguments"], ["args.first"], 5, [None]])
def test_an_option_that_cannot_be_used_hides_everything_and_is_logged(app, caplog, option):
    app.tasks.pop("wrong", None)

    @app.task(name="wrong", shared=False, redact=option)
    def wrong():
        """Have a wrong option."""

    assert redaction.redacted_names(app, "wrong") == {"args", "kwargs", "result", "traceback"}
    assert "redact of task wrong = " in caplog.text
    assert "neither arguments nor results of wrong are stored" in caplog.text

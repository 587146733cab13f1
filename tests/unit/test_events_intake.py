"""One raw event in: what it says, or why it can't be read, out."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djcelery.snapshot import intake
from djcelery.snapshot.intake import Malformed, TaskNews, WorkerNews
from tests.strategies import anything, quick

NOW = 1_790_000_000.0


def event(kind, **fields):
    return {
        "type": kind,
        "uuid": "11111111-2222-3333-4444-555555555555",
        "hostname": "celery@w1",
        "timestamp": NOW - 1,
        "clock": 5,
        "utcoffset": -2,
        "pid": 7,
        **fields,
    }


def read(kind, **fields):
    return intake.read(event(kind, **fields), NOW)


def refused(kind, **fields):
    news = read(kind, **fields)
    assert isinstance(news, Malformed)
    return news.reason


def without(kind, key):
    return intake.read({name: value for name, value in event(kind).items() if name != key}, NOW)


def test_a_reception_says_what_was_called_and_where_it_came_to():
    news = read(
        "task-received",
        name="shop.tasks.add",
        args="(1,)",
        kwargs="{'a': 2}",
        root_id="r",
        parent_id="p",
        retries=2,
        eta="2026-09-21T12:00:00+02:00",
        expires="2026-09-22T12:00:00",
    )
    assert (news.event, news.state, news.worker, news.hostname, news.pid) == (
        "received",
        "RECEIVED",
        "celery@w1",
        "celery@w1",
        7,
    )
    assert (news.name, news.args, news.kwargs, news.root_id, news.parent_id) == (
        "shop.tasks.add",
        "(1,)",
        "{'a': 2}",
        "r",
        "p",
    )
    assert (news.retries, news.retries_at, news.received_at, news.timestamp) == (2, NOW - 1, NOW - 1, NOW - 1)
    assert news.eta == datetime(2026, 9, 21, 10, tzinfo=timezone.utc)
    # Celery writes times without a zone in UTC.
    assert news.expires == datetime(2026, 9, 22, 12, tzinfo=timezone.utc)
    assert not news.is_final
    assert news.flags == ()


def test_a_sent_task_has_a_client_and_no_worker():
    news = read("task-sent", name="x", queue="fast", routing_key="fast.key", hostname="gen1@web", retries=0)
    assert (news.state, news.worker, news.client, news.queue, news.routing_key) == (
        "PENDING",
        None,
        "gen1@web",
        "fast",
        "fast.key",
    )
    assert news.sent_at == NOW - 1


@pytest.mark.parametrize(
    ("kind", "fields", "state", "is_final"),
    [
        ("task-started", {}, "STARTED", False),
        ("task-succeeded", {"result": "'ok'", "runtime": 0.5}, "SUCCESS", True),
        ("task-failed", {"exception": "KeyError('x')", "traceback": "tb"}, "FAILURE", True),
        ("task-retried", {"exception": "KeyError('x')", "traceback": "tb"}, "RETRY", False),
        ("task-revoked", {"terminated": True, "signum": "15", "expired": False}, "REVOKED", True),
        ("task-revoked", {"terminated": False, "signum": None, "expired": True}, "REVOKED", True),
        ("task-rejected", {"requeue": False}, "REJECTED", True),
        ("task-rejected", {"requeue": True}, "REJECTED", False),
        ("task-cancelled", {}, "RETRY", False),
    ],
)
def test_every_event_of_a_task_has_its_state(kind, fields, state, is_final):
    news = read(kind, **fields)
    assert (news.state, news.is_final, news.worker) == (state, is_final, "celery@w1")
    assert (news.finished_at is not None) is is_final


def test_ends_bring_their_outcome():
    news = read("task-succeeded", result="'ok'", runtime=0.5)
    assert (news.result, news.runtime, news.exception) == ("'ok'", 0.5, None)
    news = read("task-failed", exception="KeyError('x')", traceback="tb")
    assert (news.result, news.exception, news.traceback) == (None, "KeyError('x')", "tb")
    assert read("task-revoked", expired=True).exception == "expired"
    assert read("task-revoked", terminated=True, signum=15).exception == "terminated by signal 15"
    assert read("task-succeeded", result="None", runtime=None).runtime is None


def test_an_event_of_the_projects_own_is_progress_and_no_state():
    news = read("task-progress", done=3, of=7)
    assert (news.event, news.state, news.worker) == ("progress", None, None)
    assert json.loads(news.progress) == {"event": "progress", "done": 3, "of": 7}
    assert news.progress_at == NOW - 1


def test_progress_that_is_too_long_is_cut_and_still_json(settings):
    settings.DJCELERY_ARGS_MAX_BYTES = 100
    news = read("task-progress", text="x" * 1000)
    assert json.loads(news.progress)["event"] == "progress"
    assert news.flags == ("progress_cut",)


def test_values_that_json_has_not_are_shown_in_progress():
    assert "Decimal" in read("task-progress", price=Decimal(1)).progress


def test_a_heartbeat_says_how_the_worker_does():
    news = read(
        "worker-heartbeat",
        freq=2.0,
        active=3,
        processed=100,
        loadavg=[0.5, 0.25, 1.0],
        sw_ident="py-celery",
        sw_ver="5.7.0",
        sw_sys="Linux",
    )
    assert isinstance(news, WorkerNews)
    assert (news.hostname, news.pid, news.last_heartbeat) == ("celery@w1", 7, NOW - 1)
    assert (news.frequency, news.active, news.processed, news.load) == (2.0, 3, 100, "0.5 0.25 1.0")
    assert (news.software, news.version, news.system) == ("py-celery", "5.7.0", "Linux")


def test_a_worker_comes_and_goes():
    assert read("worker-online").online_at == NOW - 1
    assert read("worker-online", processed=0).online_at == NOW - 1
    # When its events were switched on.
    assert read("worker-online", processed=7).online_at is None
    news = read("worker-offline")
    assert (news.offline_at, news.last_heartbeat) == (NOW - 1, None)


@pytest.mark.parametrize("kind", ["worker-dance", "kitchen-fire", "task", "task-", "nonsense", "worker"])
def test_what_is_nothing_for_the_camera_is_nothing(kind):
    assert read(kind) is None


@pytest.mark.parametrize("body", [None, 3, "text", [], [1], {}, {"type": None}, {"type": 3}, {"type": ""}])
def test_what_is_no_event_is_malformed(body):
    assert isinstance(intake.read(body, NOW), Malformed)


@pytest.mark.parametrize("kind", ["task-received", "task-succeeded", "task-progress"])
def test_a_task_without_an_id_is_malformed(kind):
    assert without(kind, "uuid").reason == "it has no uuid"
    assert refused(kind, uuid=None) == "it has no uuid"
    assert refused(kind, uuid=17) == "it has no uuid"
    assert refused(kind, uuid="x" * 37) == "its uuid is no text of up to 36 characters"
    assert refused(kind, uuid="a\x00b") == "its uuid is no text of up to 36 characters"
    assert refused(kind, uuid=" a") == "its uuid is no text of up to 36 characters"


@pytest.mark.parametrize("kind", ["task-received", "worker-heartbeat", "task-progress"])
def test_an_event_without_a_sender_is_malformed(kind):
    assert without(kind, "hostname").reason == "it has no hostname"
    assert refused(kind, hostname="") == "it has no hostname"
    assert refused(kind, hostname=["w"]) == "it has no hostname"
    assert refused(kind, hostname="h" * 256) == "its hostname is no text of up to 255 characters"
    assert refused(kind, hostname="w\udc80") == "its hostname is no text of up to 255 characters"


@pytest.mark.parametrize("kind", ["task-started", "worker-heartbeat", "worker-offline", "task-progress"])
@pytest.mark.parametrize(
    ("timestamp", "reason"),
    [
        (None, "it has no timestamp"),
        ("2026-09-21T12:00:00", "its timestamp is no number"),
        (str(NOW), "its timestamp is no number"),
        (True, "its timestamp is no number"),
        ([NOW], "its timestamp is no number"),
        (float("nan"), "its timestamp is before the year 2000"),
        (0, "its timestamp is before the year 2000"),
        (-1e300, "its timestamp is before the year 2000"),
        (NOW + 86_401, "its timestamp is more than a day ahead"),
        (NOW * 1000, "its timestamp is more than a day ahead"),
        (float("inf"), "its timestamp is more than a day ahead"),
    ],
)
def test_a_time_that_can_not_be_is_malformed(kind, timestamp, reason):
    assert refused(kind, timestamp=timestamp) == reason


@pytest.mark.parametrize("timestamp", [NOW - 5, int(NOW) - 5, Decimal("1789999995.5"), NOW + 3600])
def test_any_number_is_a_time_even_a_bit_ahead(timestamp):
    news = read("task-started", timestamp=timestamp)
    assert news.timestamp == float(timestamp)


def test_times_have_microseconds_as_in_databases():
    assert read("task-started", timestamp=NOW + 0.12345678).timestamp == round(NOW + 0.123457, 6)


def test_the_time_is_not_moved_by_the_zone_of_the_worker():
    assert {read("task-started", utcoffset=offset).timestamp for offset in (-12, 0, 5, None, "x")} == {NOW - 1}


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("task-received", "eta", "tomorrow, perhaps"),
        ("task-received", "eta", 17),
        ("task-received", "expires", [1]),
        ("task-received", "retries", "2"),
        ("task-received", "retries", -1),
        ("task-received", "retries", 2**31),
        ("task-received", "retries", 1.5),
        ("task-succeeded", "runtime", "long"),
        ("task-succeeded", "runtime", float("nan")),
        ("task-succeeded", "runtime", float("inf")),
        ("task-succeeded", "runtime", -0.1),
        ("worker-heartbeat", "processed", "many"),
        ("worker-heartbeat", "active", -3),
        ("worker-heartbeat", "freq", "often"),
    ],
)
def test_a_field_that_can_not_be_makes_the_event_malformed(kind, key, value):
    assert key in refused(kind, **{key: value})


def test_an_eta_at_the_end_of_time_is_kept_within_what_databases_hold():
    assert read("task-received", eta="9999-12-31T23:59:59-12:00").eta.year == 9999
    assert read("task-received", eta="0001-01-01T00:00:00+00:00").eta.year == 1970


def test_what_databases_can_not_hold_is_escaped_and_flagged():
    news = read("task-received", name="a\x00b", args="('\udc80',)", kwargs="{'ä': '😀'}")
    assert (news.name, news.args, news.kwargs) == ("a\\x00b", "('\\udc80',)", "{'ä': '😀'}")
    assert news.flags == ("name_escaped", "args_escaped")


def test_long_texts_are_cut_and_flagged(settings):
    settings.DJCELERY_ARGS_MAX_BYTES = 300
    news = read("task-received", name="n" * 500, args="a" * 301, kwargs="k" * 300, root_id="r" * 999)
    assert (len(news.name), len(news.args), len(news.kwargs), len(news.root_id)) == (200, 300, 300, 255)
    assert news.flags == ("name_cut", "args_cut", "root_id_cut")
    settings.DJCELERY_ARGS_MAX_BYTES = None
    assert len(read("task-received", args="a" * 100_000).args) == 100_000


def test_of_a_long_result_the_beginning_is_kept_and_of_a_traceback_the_end():
    assert len(read("task-succeeded", result="x" * 70_000).result) == 65_536
    news = read("task-failed", exception="e" * 70_000, traceback="t" * 1_100_000 + "KeyError: the end")
    assert (len(news.exception), len(news.traceback)) == (65_536, 1_048_576 + 4)
    assert news.traceback.startswith("[…]\n")
    assert news.traceback.endswith("KeyError: the end")
    assert set(news.flags) == {"exception_cut", "traceback_cut"}


def test_a_result_that_is_no_text_is_shown_as_one():
    assert read("task-succeeded", result={"a": 1}).result == "{'a': 1}"


def test_a_malformed_event_is_kept_as_text_that_a_database_can_hold():
    news = intake.read({"type": "task-started", "uuid": "x\x00\udc80" + "y" * 5000}, NOW)
    assert len(news.body) == 2000
    news.body.encode()
    assert "\x00" not in news.body


def test_an_event_that_can_not_even_be_shown_is_malformed():
    nested = []
    nested.append(nested)
    news = intake.read({"type": "task-started", "uuid": "x", "hostname": "h", "timestamp": nested}, NOW)
    assert isinstance(news, Malformed)


def test_lists_of_events_are_read_one_by_one():
    # The camera goes through the list, see ``test_camera_program``: here a list is no event.
    events = [event("task-started"), "x", event("worker-heartbeat"), event("other-thing")]
    found = [intake.read(each, NOW) for each in events]
    assert [type(news) for news in found] == [TaskNews, Malformed, WorkerNews, type(None)]
    assert isinstance(intake.read(events, NOW), Malformed)


@pytest.mark.parametrize("load", [["\ud800"], ["\x00", 1.0], ["é" * 100], [{"\ud800": "\x00"}]])
def test_every_text_of_a_worker_can_be_stored(load):
    news = read("worker-heartbeat", loadavg=load, sw_ident="\ud800", sw_ver="\x00", sw_sys="\ud800\x00")
    for text in (news.load, news.software, news.version, news.system):
        assert text.encode()
        assert "\x00" not in text
        assert len(text) <= 64


kinds = st.sampled_from(
    [f"task-{name}" for name in ("sent", "received", "started", "succeeded", "failed", "retried", "rejected", "mine")]
    + ["worker-online", "worker-heartbeat", "worker-offline"]
)
names = "uuid hostname timestamp pid name args eta retries runtime result traceback processed loadavg freq requeue"
keys = st.sampled_from(names.split())


@quick
@given(kinds, st.dictionaries(keys, anything, max_size=4))
def test_no_event_whatever_is_in_it_raises(kind, fields):
    news = read(kind, **fields)
    assert news is None or isinstance(news, (TaskNews, WorkerNews, Malformed))

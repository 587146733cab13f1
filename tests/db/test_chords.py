"""Chords on the tables of chords, on whichever engine is chosen: one callback, with the values of the parts."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from datetime import timedelta

import pytest
from celery import chord, group
from celery.app.task import Context
from celery.exceptions import ChordError
from celery.signals import before_task_publish
from celery.utils.functional import regen
from django.db import IntegrityError, OperationalError, connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from kombu.exceptions import EncodeError

from djcelery import db, utils
from djcelery.backends import chords
from djcelery.backends.database import DatabaseBackend
from djcelery.models import Chord, ChordPart, TaskMeta

pytestmark = pytest.mark.django_db


def close_connections():
    """Close this thread's connections; Django itself leaves those to a database in memory open."""
    for own in connections.all(initialized_only=True):
        BaseDatabaseWrapper.close(own)


@pytest.fixture
def sent():
    """The messages that are sent: ``(task id, first argument)``."""
    messages = []

    def note(body=None, headers=None, **kwargs):
        if headers["task"] == "total":
            messages.append((headers["id"], body[0][0]))

    before_task_publish.connect(note)
    yield messages
    before_task_publish.disconnect(note)


@pytest.fixture
def backend(celery_app):
    celery_app.conf.broker_url = "memory://"

    @celery_app.task(name="total", shared=False)
    def total(values):
        return values

    return celery_app.backend


@pytest.fixture
def callback(celery_app, backend):
    return celery_app.signature("total", options={"task_id": "callback"})


class Header:
    """A chord that was sent, and its parts as a worker returns them."""

    def __init__(self, backend, callback, size, group_id="gid"):
        self.backend, self.callback, self.group_id = backend, callback, group_id
        results = [backend.app.AsyncResult(f"part{number}") for number in range(size)]
        backend.apply_chord((group_id, results), callback)
        backend.set_chord_size(group_id, size)

    def request(self, number, task_id=None, **kwargs):
        task_id = task_id or f"part{number}"
        return Context(id=task_id, group=self.group_id, group_index=number, chord=self.callback, **kwargs)

    def done(self, number, value=None, **kwargs):
        request = self.request(number, **kwargs)
        self.backend.mark_as_done(request.id, number if value is None else value, request)

    def failed(self, number, exc):
        request = self.request(number)
        self.backend.mark_as_failure(request.id, exc, request=request)


@pytest.fixture
def header(backend, callback):
    return lambda size, **kwargs: Header(backend, callback, size, **kwargs)


# the usual way


def test_the_callback_gets_the_values_in_the_order_of_the_header(header, sent):
    chord = header(3)
    for number in (2, 0):
        chord.done(number)
    assert sent == []
    chord.done(1)
    assert sent == [("callback", [0, 1, 2])]


def test_what_a_chord_costs_is_asserted(backend, callback, header, django_assert_num_queries):
    with django_assert_num_queries(2):
        backend.apply_chord(("gid", []), callback)
    with django_assert_num_queries(1):
        backend.set_chord_size("gid", 2)
    chords = Chord.objects

    def part(number):
        text = {"content_type": "application/json", "content_encoding": "utf-8"}
        return {"group_id": "gid", "task_id": f"{number}", "position": number, "state": "SUCCESS", "value": "1", **text}

    with django_assert_num_queries(3):
        assert chords.part_returned(part(0)) is None
    with django_assert_num_queries(3):
        assert chords.part_returned(part(0)) is None
    with django_assert_num_queries(4):
        turn = chords.part_returned(part(1))
    with django_assert_num_queries(2):
        chords.parts("gid")
    with django_assert_num_queries(2):
        chords.sent(turn)


def test_the_values_come_from_the_parts_not_from_the_results(header, sent):
    chord = header(2)
    chord.done(0, ignore_result=True)
    chord.done(1)
    TaskMeta.objects.all().delete()
    assert sent == [("callback", [0, 1])]


@pytest.mark.parametrize("value", ["nul \x00", "😀", "lone \udc80", {"a": [1, None]}, float("inf")])
def test_values_that_databases_find_hard_reach_the_callback(header, sent, value):
    header(1).done(0, value)
    assert sent == [("callback", [value])]


def test_the_configured_serializer_is_used(celery_app, backend, callback, sent):
    celery_app.conf.update(result_serializer="pickle", task_serializer="pickle", accept_content=["pickle"])
    celery_app._local.backend = DatabaseBackend(app=celery_app, serializer="pickle")
    Header(celery_app.backend, callback, 1).done(0, {1, 2})
    assert sent == [("callback", [{1, 2}])]


def test_a_value_that_the_serializer_cannot_carry_fails_its_task_and_is_not_counted(header, backend):
    chord = header(2)
    with pytest.raises(EncodeError):
        chord.done(0, object(), ignore_result=True)
    assert ChordPart.objects.count() == 0


def test_a_task_outside_a_group_is_no_part(backend, callback):
    backend.on_chord_part_return(Context(id="id", chord=callback), "SUCCESS", 1)
    backend.on_chord_part_return(Context(group="gid", chord=callback), "SUCCESS", 1)
    assert Chord.objects.count() == 0


def test_the_size_may_come_after_the_first_parts(backend, callback, header, sent):
    backend.apply_chord(("gid", regen(iter(()))), callback)
    parts = Header.__new__(Header)
    parts.backend, parts.callback, parts.group_id = backend, callback, "gid"
    parts.done(0)
    backend.set_chord_size("gid", 2)
    parts.done(1)
    assert sent == [("callback", [0, 1])]


def test_a_generator_header_is_not_unrolled(backend, callback):
    def results():
        raise AssertionError("unrolled")
        yield

    backend.apply_chord(("gid", regen(results())), callback)
    assert Chord.objects.get().header is None


def test_a_task_that_adds_another_is_waited_for_with_it(header, backend, sent):
    chord = header(2)
    chord.done(1)
    backend.add_to_chord("gid", backend.app.AsyncResult("added"))
    chord.done(0)
    assert sent == []
    chord.done(0, "more", task_id="added")
    assert sent == [("callback", [0, "more", 1])]


def test_one_signature_used_twice_in_a_header_counts_twice(header, sent):
    chord = header(2)
    chord.done(0, "a", task_id="same")
    chord.done(1, "b", task_id="same")
    assert sent == [("callback", ["a", "b"])]


# nested headers


def nested(app):
    result = app.AsyncResult
    inner = app.GroupResult("inner", [result("b"), app.GroupResult("innermost", [result("c")])])
    return "gid", [result("a"), inner, result("d")]


def parts_of(backend, callback, **values):
    for task_id, value in values.items():
        request = Context(id=task_id, group="gid", group_index=0, chord=callback, ignore_result=True)
        backend.mark_as_done(task_id, value, request)


def test_a_nested_header_keeps_its_shape(celery_app, backend, callback, sent):
    backend.apply_chord(nested(celery_app), callback)
    backend.set_chord_size("gid", 4)
    parts_of(backend, callback, d=4, c=3, b=2, a=1)
    assert sent == [("callback", [1, [2, [3]], 4])]


def test_parts_added_to_a_nested_header_come_last(celery_app, backend, callback, sent):
    backend.apply_chord(nested(celery_app), callback)
    backend.set_chord_size("gid", 4)
    backend.add_to_chord("gid", celery_app.AsyncResult("added"))
    parts_of(backend, callback, added=5, a=1, b=2, c=3, d=4)
    assert sent == [("callback", [1, [2, [3]], 4, 5])]


def test_a_task_of_a_nested_header_that_is_no_part_is_asked_for_its_result(celery_app, backend, callback, sent):
    backend.apply_chord(nested(celery_app), callback)
    backend.set_chord_size("gid", 3)
    backend.store_result("d", 4, "SUCCESS")
    parts_of(backend, callback, a=1, b=2, c=3)
    assert sent == [("callback", [1, [2, [3]], 4])]


def test_an_empty_header_sends_the_body_at_once(celery_app, backend, sent):
    chord([], app=celery_app)(celery_app.signature("total"))
    assert [values for _, values in sent] == [[]]
    assert Chord.objects.count() == 0


# failures


def test_a_failed_part_fails_the_callback_and_names_the_cause(header, backend, sent):
    chord = header(2)
    chord.failed(0, KeyError("boom"))
    assert backend.get_state("callback") == "PENDING"
    chord.done(1)
    assert sent == []
    error = backend.get_result("callback")
    assert isinstance(error, ChordError)
    assert str(error) == "Dependency part0 raised KeyError('boom')"
    assert ChordPart.objects.count() == 0


def test_the_chord_error_has_the_error_of_the_part_as_its_cause(header, backend, monkeypatch):
    errors = []
    monkeypatch.setattr(backend, "chord_error_from_stack", lambda callback, exc: errors.append(exc))
    header(1).failed(0, KeyError("boom"))
    assert isinstance(errors[0].__cause__, KeyError)


def test_the_first_failure_in_the_order_of_the_header_is_named(header, backend):
    chord = header(2)
    chord.failed(1, ValueError("second"))
    chord.failed(0, ValueError("first"))
    assert "part0 raised ValueError('first')" in str(backend.get_result("callback"))


def test_a_revoked_part_fails_the_callback(header, backend):
    chord = header(1)
    backend.mark_as_revoked("part0", "terminated", chord.request(0))
    assert "part0 raised TaskRevokedError('terminated')" in str(backend.get_result("callback"))


def test_a_callback_that_cannot_be_sent_fails(header, backend, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no broker")

    monkeypatch.setattr("celery.canvas.Signature.delay", refuse)
    header(1).done(0)
    assert str(backend.get_result("callback")) == "Callback error: OSError('no broker')"
    assert Chord.objects.get().dispatched_at is not None


def test_a_part_that_cannot_be_read_fails_the_callback(header, backend, sent):
    chord = header(2)
    chord.done(0)
    ChordPart.objects.update(content_type="application/x-python-serialize", value="gAJjb3MKc3lzdGVtCnEALg==")
    chord.done(1)
    assert sent == []
    assert "Join error" in str(backend.get_result("callback"))
    assert "os.system" in str(backend.get_result("callback"))


def test_the_tasks_of_a_body_that_is_a_group_fail_one_by_one(celery_app, backend, monkeypatch):
    monkeypatch.setattr(celery_app.control, "revoke", lambda *args, **kwargs: None)
    body = group([celery_app.signature("total"), celery_app.signature("total")], app=celery_app)
    ids = [result.id for result in body.freeze().results]
    Header(backend, body, 1).failed(0, KeyError("boom"))
    assert [backend.get_state(task_id) for task_id in ids] == ["FAILURE", "FAILURE"]


def test_an_error_in_noting_that_the_callback_was_sent_does_not_fail_the_part(header, backend, sent, monkeypatch):
    def fail(*args):
        raise OperationalError("gone")

    monkeypatch.setattr(Chord.objects.__class__, "sent", fail)
    header(1).done(0)
    assert sent == [("callback", [0])]
    assert backend.get_state("part0") == "SUCCESS"


# delivered again


def test_a_part_that_is_delivered_again_counts_once(header, sent):
    chord = header(2)
    chord.done(0)
    chord.done(0)
    assert (Chord.objects.get().done, sent) == (1, [])
    chord.done(1)
    assert sent == [("callback", [0, 1])]


def test_late_parts_do_nothing_once_the_callback_was_sent(header, sent):
    chord = header(2)
    for number in (0, 1, 0, 1):
        chord.done(number)
    chord.done(5)
    assert sent == [("callback", [0, 1])]
    assert (Chord.objects.count(), ChordPart.objects.count()) == (1, 0)


def test_a_part_whose_worker_died_before_it_sent_the_callback_sends_it_with_the_same_id(header, sent, monkeypatch):
    monkeypatch.setattr(chords, "DISPUTE_S", 0.1)
    chord = header(2)
    chord.done(0)

    def die(*args, **kwargs):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("celery.canvas.Signature.delay", die)
        with pytest.raises(SystemExit):
            chord.done(1)
    assert sent == []
    chord.done(0)
    assert sent == []
    chord.done(1)
    assert sent == [("callback", [0, 1])]


def test_a_chord_that_is_sent_again_after_its_callback_begins_anew(header, sent):
    for _ in range(2):
        chord = header(2)
        chord.done(1)
        chord.done(0)
    assert sent == [("callback", [0, 1])] * 2


def test_a_chord_that_begins_anew_before_the_callback_was_noted_is_not_ended_by_the_note(header, sent, monkeypatch):
    notes = []
    with monkeypatch.context() as patch:
        patch.setattr(Chord.objects.__class__, "sent", lambda manager, turn: notes.append(turn))
        header(1).done(0)
    chord = header(2)
    chord.done(0)
    Chord.objects.sent(notes[0])
    chord.done(1)
    assert sent == [("callback", [0]), ("callback", [0, 1])]


def test_a_chord_that_is_sent_twice_keeps_the_parts_that_returned(header, sent):
    header(2).done(0)
    header(2).done(1)
    assert sent == [("callback", [0, 1])]


def test_parts_of_a_chord_that_an_older_release_sent_send_nothing(backend, callback, sent):
    for number in range(2):
        request = Context(id=f"part{number}", group="gid", group_index=number, chord=callback)
        backend.mark_as_done(request.id, number, request)
    assert sent == []


# transactions and failures of the database


@pytest.mark.django_db(transaction=True)
def test_after_a_transient_error_the_whole_step_is_done_again(header, sent, monkeypatch):
    chord = header(2)
    chord.done(0)
    failures = [OperationalError("deadlock")]
    insert = db.execute_text

    def fail_once(cursor, sql, values):
        if "djcelery_chordpart" in sql and failures:
            raise failures.pop()
        insert(cursor, sql, values)

    monkeypatch.setattr(db, "execute_text", fail_once)
    monkeypatch.setattr(db, "is_transient", lambda exc: True)
    chord.done(1)
    assert sent == [("callback", [0, 1])]
    assert failures == []


@pytest.mark.django_db(transaction=True)
def test_a_short_transaction_is_all_or_nothing_and_leaves_autocommit_on():
    def write_and_fail():
        with db.short_transaction(connection):
            Chord.objects.create(group_id="gid", changed_at=utils.now())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert Chord.objects.count() == 0
    assert connection.get_autocommit()
    with db.short_transaction(connection):
        Chord.objects.create(group_id="gid", changed_at=utils.now())
    assert connection.get_autocommit()
    connection.close()
    assert Chord.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_short_transaction_ends_after_an_error_of_the_database():
    Chord.objects.create(group_id="gid", changed_at=utils.now())
    with pytest.raises(IntegrityError), db.short_transaction(connection):
        Chord.objects.create(group_id="gid", changed_at=utils.now())
    assert Chord.objects.count() == 1


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite has one writer at a time")
@pytest.mark.django_db(transaction=True)
def test_a_chord_that_is_sent_inside_a_transaction_is_seen_at_once(header, sent):
    with transaction.atomic():
        chord = header(1)
        seen = []

        def return_part():
            try:
                chord.done(0)
                seen.append(list(sent))
            finally:
                close_connections()

        thread = threading.Thread(target=return_part)
        thread.start()
        thread.join(60)
        transaction.set_rollback(True)
    assert seen == [[("callback", [0])]]
    assert Chord.objects.get().dispatched_at is not None


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("workers", [2, 5])
def test_many_workers_that_finish_at_once_send_one_callback(header, sent, workers):
    rounds = 12
    barrier, errors = threading.Barrier(workers), []

    def work(number):
        try:
            for turn in range(rounds):
                barrier.wait(120)
                headers[turn].done(number)
                if turn % 2:
                    headers[turn].done(number)
        except Exception as exc:  # noqa: BLE001 - handed to the main thread
            errors.append(exc)
            barrier.abort()
        finally:
            close_connections()

    headers = [header(workers, group_id=f"gid{turn}") for turn in range(rounds)]
    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sent == [("callback", list(range(workers)))] * rounds
    assert ChordPart.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_a_part_that_two_workers_run_at_once_sends_one_callback(header, sent, monkeypatch):
    # Who comes second must not take the first one for dead because this machine is busy.
    monkeypatch.setattr(chords, "DISPUTE_S", 60.0)
    chord = header(1)
    barrier = threading.Barrier(2)
    publish = DatabaseBackend._finish_chord

    def slowly(*args):
        threading.Event().wait(0.3)
        publish(*args)

    monkeypatch.setattr(DatabaseBackend, "_finish_chord", slowly)

    def work():
        try:
            barrier.wait(120)
            chord.done(0)
        finally:
            close_connections()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sent == [("callback", [0])]


class ToTheChords:
    def db_for_write(self, model, **hints):
        return "chords" if model is Chord else None


def test_chords_are_counted_on_the_alias_for_writing(backend, callback, settings, monkeypatch):
    settings.DATABASE_ROUTERS = [ToTheChords()]
    aliases = []

    @contextmanager
    def note(alias):
        aliases.append(alias)
        yield lambda: connection

    monkeypatch.setattr(db, "outside_transaction", note)
    Header(backend, callback, 1).done(0)
    assert set(aliases) == {"chords"}


# groups


@pytest.mark.parametrize("size", [0, 2])
def test_groups_in_groups_are_restored(celery_app, backend, size):
    inner = celery_app.GroupResult("inner", [celery_app.AsyncResult(f"{number}") for number in range(size)])
    outer = celery_app.GroupResult("outer", [celery_app.GroupResult("middle", [inner]), inner])
    outer.save()
    restored = celery_app.GroupResult.restore("outer")
    assert restored.as_tuple() == outer.as_tuple()
    assert restored.results[0].results[0].as_tuple() == inner.as_tuple()


def test_an_unknown_group_is_none_and_deleting_it_does_nothing(celery_app, backend):
    assert celery_app.GroupResult.restore("unknown") is None
    assert backend.restore_group("unknown") is None
    backend.delete_group("unknown")


# cleaning up


def test_chords_without_activity_are_deleted_with_their_parts(header):
    for number in range(5):
        header(2, group_id=f"old{number}").done(0)
    Chord.objects.update(changed_at=utils.now() - timedelta(days=2))
    header(2, group_id="new").done(0)
    assert Chord.objects.delete_expired(timedelta(days=1), batch_rows=2) == 5
    assert list(Chord.objects.values_list("group_id", flat=True)) == ["new"]
    assert list(ChordPart.objects.values_list("group_id", flat=True)) == ["new"]


@pytest.mark.parametrize("age", [None, 0, timedelta(0)])
def test_without_an_age_no_chord_is_deleted(header, age):
    header(2).done(0)
    Chord.objects.update(changed_at=utils.now() - timedelta(days=2))
    assert Chord.objects.delete_expired(age) == 0
    assert ChordPart.objects.count() == 1


def test_a_part_that_returns_after_its_chord_was_deleted_sends_nothing(header, sent):
    chord = header(2)
    chord.done(0)
    Chord.objects.update(changed_at=utils.now() - timedelta(days=2))
    Chord.objects.delete_expired(timedelta(days=1))
    chord.done(1)
    assert sent == []

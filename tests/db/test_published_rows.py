"""Rows at publish: PENDING, inserted if absent, when the sender's transaction is committed."""

from __future__ import annotations

import datetime
import uuid

import pytest
from celery import Celery
from celery.result import AsyncResult
from django.db import OperationalError, connection, transaction

from djcelery import utils
from djcelery.backends import columns
from djcelery.models import TaskMeta

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def app(celery_app, settings):
    settings.DJCELERY_STORE_PUBLISHED = True
    celery_app.conf.update(broker_url="memory://", result_backend="database")
    return celery_app


@pytest.fixture
def charge(app):
    @app.task(name="shop.charge", shared=False)
    def charge(order_id, currency="EUR"):
        return order_id

    return charge


def names():
    return sorted(TaskMeta.objects.values_list("name", flat=True))


def test_a_sent_task_has_a_row_with_what_is_known(charge):
    sent = charge.apply_async((5,), {"currency": "USD"}, queue="payments", headers={"periodic_task_name": "nightly"})
    row = TaskMeta.objects.get(task_id=sent.id)
    assert (row.status, row.name, row.args, row.kwargs) == ("PENDING", "shop.charge", [5], {"currency": "USD"})
    assert (row.queue, row.periodic_task, row.retries, row.root_id) == ("payments", "nightly", 0, sent.id)
    assert abs(utils.now() - row.created) < datetime.timedelta(seconds=30)
    assert (row.started, row.finished, row.worker, row.result, row.runtime) == (None, None, None, None, None)
    assert AsyncResult(sent.id).state == "PENDING"
    assert AsyncResult(sent.id).date_done is None
    assert list(TaskMeta.objects.unfinished()) == [row]


def test_without_the_setting_there_is_none(charge, settings, django_assert_num_queries):
    settings.DJCELERY_STORE_PUBLISHED = False
    with django_assert_num_queries(0):
        charge.delay(1)
    assert names() == []


def test_it_is_one_statement(charge, django_assert_num_queries):
    charge.delay(1)
    with django_assert_num_queries(1):
        charge.delay(1)


def test_it_waits_for_the_commit_of_the_sender(charge):
    with transaction.atomic():
        charge.delay(1)
        with transaction.atomic():
            charge.delay(2)
        assert names() == []
    assert names() == ["shop.charge", "shop.charge"]


def test_a_rollback_leaves_no_row(charge):
    with transaction.atomic():
        charge.delay(1)
        transaction.set_rollback(True)
    assert names() == []


def test_a_rolled_back_savepoint_leaves_no_row(charge):
    with transaction.atomic():
        kept = charge.delay(1)
        with transaction.atomic():
            charge.delay(2)
            transaction.set_rollback(True)
    assert list(TaskMeta.objects.values_list("task_id", flat=True)) == [kept.id]


def test_arguments_are_those_of_the_sending_whatever_becomes_of_them_before_the_commit(charge):
    basket = ["book"]
    with transaction.atomic():
        sent = charge.delay(basket)
        basket.append("pen")
    assert TaskMeta.objects.get(task_id=sent.id).args == [["book"]]


@pytest.mark.parametrize("state", ["STARTED", "SUCCESS"])
def test_a_worker_that_was_faster_wins(app, charge, state):
    with transaction.atomic():
        sent = charge.delay(1)
        # Another process, with a transaction of its own, would write this.
        transaction.on_commit(lambda: None)
        commits = connection.run_on_commit
        commits.insert(0, (set(), lambda: app.backend.store_result(sent.id, 7, state), False))
    assert TaskMeta.objects.values_list("status", "result").get(task_id=sent.id) == (state, 7)


def test_a_later_write_keeps_when_it_was_sent(app, charge):
    sent = charge.delay(1)
    created = TaskMeta.objects.get(task_id=sent.id).created
    app.backend.store_result(sent.id, 7, "SUCCESS")
    row = TaskMeta.objects.get(task_id=sent.id)
    assert (row.created, row.status, row.name, row.args) == (created, "SUCCESS", "shop.charge", [1])
    assert row.created <= row.finished


def test_a_retry_that_is_sent_again_changes_nothing(app, charge):
    sent = charge.delay(1)
    app.backend.store_result(sent.id, ValueError("again"), "RETRY")
    charge.apply_async((2,), task_id=sent.id, retries=1)
    row = TaskMeta.objects.get(task_id=sent.id)
    assert (row.status, row.args) == ("RETRY", [1])


def test_tasks_that_ignore_their_result_get_none(app, charge):
    @app.task(name="shop.silent", shared=False, ignore_result=True)
    def silent():
        """Return nothing that anybody wants."""

    silent.delay()
    charge.apply_async((1,), ignore_result=True)
    charge.delay(2)
    assert names() == ["shop.charge"]


def test_other_backends_get_none_and_two_apps_get_their_own(app, charge):
    with Celery("other", broker="memory://", backend="cache+memory://", set_as_current=False) as other:
        other.send_task("other.task")
        sent = charge.delay(1)
        other.send_task("other.task")
    assert list(TaskMeta.objects.values_list("task_id", flat=True)) == [sent.id]


def test_an_app_without_djcelerys_loader_gets_rows(settings):
    settings.DJCELERY_STORE_PUBLISHED = True
    with Celery("own", broker="memory://", backend="djcelery-db", set_as_current=False) as own:
        own.send_task("by.name", (1,))
    assert names() == ["by.name"]


def test_a_task_that_could_not_be_sent_gets_none_nor_does_its_row_go_to_another(app, charge, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("the broker is gone")

    with monkeypatch.context() as patched:
        patched.setattr("kombu.messaging.Producer.publish", refuse)
        with pytest.raises(OSError, match="the broker is gone"):
            charge.delay(1)
    charge.apply_async((2,), ignore_result=True)
    assert names() == []


def test_groups_and_chains_get_the_rows_of_what_is_sent(app, charge):
    from celery import chain, group

    group(charge.s(1), charge.s(2)).apply_async()
    assert set(TaskMeta.objects.values_list("group_id", flat=True)) != {None}
    chain(charge.si(3), charge.si(4)).apply_async()
    assert sorted(row.args[0] for row in TaskMeta.objects.all()) == [1, 2, 3]


def test_messages_of_the_first_protocol_get_rows(app, charge):
    app.conf.task_protocol = 1
    del app.amqp
    sent = charge.delay(5)
    row = TaskMeta.objects.get(task_id=sent.id)
    assert (row.name, row.args, row.status) == ("shop.charge", [5], "PENDING")


def test_an_eager_task_has_the_row_of_its_end_alone(app, charge, django_assert_num_queries):
    app.conf.update(task_always_eager=True, task_store_eager_result=True)
    with django_assert_num_queries(1):
        sent = charge.delay(5)
    assert TaskMeta.objects.get(task_id=sent.id).status == "SUCCESS"


def test_an_error_of_the_database_is_logged_and_the_task_is_sent(charge, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise OperationalError("disk full")

    monkeypatch.setattr("djcelery.managers.TaskManager.write", fail)
    sent = charge.delay(1)
    assert f"Task {sent.id} was sent, but its row could not be stored (disk full)." in caplog.text
    with transaction.atomic():
        charge.delay(2)
    assert caplog.text.count("disk full") == 2


def test_without_autocommit_the_task_is_sent_and_the_missing_row_is_logged(charge, caplog):
    transaction.set_autocommit(False)
    try:
        sent = charge.delay(1)
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert f"Task {sent.id} was sent, but its row could not be stored" in caplog.text
    assert names() == []


def test_secrets_stay_out_of_the_row(app, settings):
    settings.DJCELERY_REDACT = ["kwargs.password"]

    @app.task(name="shop.login", shared=False)
    def login(user, password=None):
        """Log in."""

    sent = login.delay("me", password="s3cret")
    hidden = login.apply_async(("s3cret",), argsrepr="(***)")
    row = TaskMeta.objects.get(task_id=sent.id)
    assert (row.args, row.kwargs, row.flags) == (["me"], {"password": "[redacted]"}, "kwargs_redacted")
    row = TaskMeta.objects.get(task_id=hidden.id)
    assert (row.args, row.flags) == ("(***)", "args_redacted")


# the note in the message


def published(app, *args, **options):
    """Return the headers of a message as they are sent."""
    from celery import signals

    seen = {}

    def note(headers=None, **kwargs):
        seen.update(headers)

    signals.after_task_publish.connect(note, weak=False)
    try:
        app.send_task("shop.charge", args, **options)
    finally:
        signals.after_task_publish.disconnect(note)
    return seen


def test_a_message_says_when_it_was_sent_and_a_retry_when_it_was_sent_first(app):
    first = published(app, 1)[columns.SENT_HEADER]
    assert abs(first - utils.now().timestamp()) < 30
    again = published(app, 1, headers={columns.SENT_HEADER: first - 100})
    assert again[columns.SENT_HEADER] == first - 100


def test_a_retry_hides_what_the_first_message_hid(app):
    first = published(app, "secret", argsrepr="(***)")
    assert (first[columns.HIDDEN_HEADER], first["argsrepr"]) == ({"args": "(***)"}, "(***)")
    kept = {name: first[name] for name in (columns.SENT_HEADER, columns.HIDDEN_HEADER)}
    again = published(app, "secret", retries=1, headers=kept)
    assert (again["argsrepr"], again["kwargsrepr"]) == ("(***)", "{}")


def test_a_retry_hides_what_a_sender_without_djcelery_hid(app, charge):
    task_id = str(uuid.uuid4())
    charge.push_request(id=task_id, args=["secret"], kwargs={}, argsrepr="(***)", kwargsrepr="{}")
    from celery._state import _task_stack

    _task_stack.push(charge)
    try:
        again = published(app, "secret", retries=1, task_id=task_id)
        other = published(app, "open", retries=1)
    finally:
        _task_stack.pop()
        charge.pop_request()
    assert again["argsrepr"] == "(***)"
    assert other["argsrepr"] == "('open',)"

"""The kit for tests of projects: tasks that are captured, looked at and run; when a schedule fires."""

from __future__ import annotations

import datetime
import socket
import threading
from datetime import timedelta, timezone

import pytest
from celery import chain, chord, group, shared_task
from celery.exceptions import Retry
from celery.schedules import crontab, solar
from django.db import connection, transaction
from django.test import SimpleTestCase, TestCase, override_settings
from kombu.exceptions import EncodeError

from djcelery.contrib.testing import CapturedTasksMixin, assert_runs_at, capture_tasks
from djcelery.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule, TaskMeta
from djcelery.times import Clocked, ZonedCrontab

pytest_plugins = ["djcelery.contrib.pytest_plugin"]
pytestmark = pytest.mark.usefixtures("celery_app")


@shared_task(name="kit.add")
def add(x, y=0):
    return x + y


@shared_task(name="kit.total")
def total(numbers):
    return sum(numbers)


@shared_task(name="kit.fail")
def fail(text):
    raise ValueError(text)


@shared_task(name="kit.note")
def note(*args):
    noted.append(args)


@shared_task(bind=True, name="kit.flaky", max_retries=3, default_retry_delay=3600)
def flaky(self, successes_at):
    if self.request.retries < successes_at:
        raise self.retry(exc=OSError("not yet"))
    return self.request.retries


@shared_task(name="kit.parent")
def parent(x):
    add.delay(x)
    note.delay(x)


@shared_task(name="kit.on_commit")
def sends_on_commit(x):
    note.delay_on_commit(x)


@shared_task(name="kit.waits")
def waits():
    return add.delay(1).get()


noted = []


@pytest.fixture(autouse=True)
def nothing_noted():
    noted.clear()


@pytest.fixture
def no_network(monkeypatch):
    def refuse(self, where):
        pytest.fail(f"Connected to {where}.")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: pytest.fail(f"Resolved {args[0]}."))


# what was sent


def test_a_task_tells_how_it_was_sent(celery_app, settings):
    eta = datetime.datetime(2030, 1, 1, 12, tzinfo=timezone.utc)
    with capture_tasks() as tasks:
        result = add.apply_async((1,), {"y": 2}, queue="mail", eta=eta, expires=60, priority=3, headers={"tenant": 7})
        note.apply_async(((1, 2),), countdown=10, task_id="mine")
    first, second = tasks
    assert (first.name, first.id, first.args, first.kwargs) == ("kit.add", result.id, [1], {"y": 2})
    assert (first.queue, first.routing_key, first.exchange, first.priority) == ("mail", "mail", "", 3)
    assert (first.eta, first.headers["tenant"], first.retries) == (eta, 7, 0)
    assert first.expires > datetime.datetime.now(timezone.utc)
    assert (first.root_id, first.parent_id, first.group_id) == (result.id, None, None)
    assert first.options["headers"] == {"tenant": 7}
    assert (second.id, second.args, second.queue, second.options["countdown"]) == ("mine", [[1, 2]], "celery", 10)
    assert [sent.state for sent in tasks] == [None, None]


def test_routes_and_exchanges_decide_the_queue_as_ever(celery_app):
    celery_app.conf.task_routes = {"kit.add": {"queue": "sums"}}
    with capture_tasks() as tasks:
        add.delay(1)
        note.apply_async(exchange="topics", routing_key="a.b")
    assert (tasks[0].queue, tasks[1].exchange, tasks[1].routing_key) == ("sums", "topics", "a.b")


def test_messages_of_protocol_1_are_read_too(celery_app):
    celery_app.conf.task_protocol = 1
    with capture_tasks() as tasks:
        result = chain(add.s(1, 2), add.s(3)).delay()
        assert (tasks[0].name, tasks[0].args, tasks[0].retries) == ("kit.add", [1, 2], 0)
        tasks.run(throw=False)
    assert result is not None


def test_a_task_that_nobody_knows_can_be_sent_by_name_but_not_run(celery_app):
    with capture_tasks() as tasks:
        celery_app.send_task("elsewhere.task", [1], queue="other")
        tasks.assert_sent("elsewhere.task", [1], queue="other")
        with pytest.raises(AssertionError, match=r"No task elsewhere\.task is known in this process"):
            tasks.run()


def test_arguments_that_the_serializer_cannot_carry_fail_where_they_are_sent():
    with capture_tasks() as tasks, pytest.raises(EncodeError):
        add.delay(object())
    tasks.assert_nothing_sent()


def test_tasks_of_other_threads_are_captured():
    with capture_tasks() as tasks:
        threads = [threading.Thread(target=add.delay, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(sent.args for sent in tasks) == [[0], [1], [2], [3]]


def test_no_broker_and_no_result_server_is_touched(celery_app, no_network, monkeypatch):
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://192.0.2.1")
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://192.0.2.1")
    celery_app.conf.task_send_sent_event = True
    with capture_tasks() as tasks:
        result = chord([add.s(1, 1), flaky.s(1)], total.s()).apply_async(countdown=5)
        celery_app.control.revoke("x")
        celery_app.events.default_dispatcher  # noqa: B018 - a context manager that is not entered
        tasks.run()
        assert result.get() == 3


def test_eager_mode_is_off_in_the_block_and_on_again_after_it(celery_app):
    celery_app.conf.task_always_eager = True
    with capture_tasks() as tasks:
        note.delay(1)
        assert noted == []
        tasks.assert_sent(note, [1])
    assert celery_app.conf.task_always_eager is True
    note.delay(2)
    assert noted == [(2,)]


def test_everything_is_as_before_after_the_block(celery_app):
    # What Celery makes on first use, it keeps.
    add.delay(0)
    backend, pool = celery_app.backend, celery_app.pool
    before, changes = dict(vars(celery_app)), dict(celery_app.conf.changes)
    producers = celery_app.amqp._producer_pool
    with pytest.raises(EncodeError), capture_tasks():
        add.delay(object())
    assert vars(celery_app) == before
    assert celery_app.conf.changes == changes
    assert (celery_app.backend, celery_app.pool, celery_app.amqp._producer_pool) == (backend, pool, producers)


def test_blocks_may_be_nested():
    with capture_tasks() as outer:
        add.delay(1)
        with capture_tasks() as inner:
            add.delay(2)
        add.delay(3)
    assert ([sent.args for sent in outer], [sent.args for sent in inner]) == ([[1], [3]], [[2]])


# assertions


@pytest.fixture
def sent():
    with capture_tasks() as tasks:
        add.apply_async((1, 2), queue="mail")
        add.apply_async((1, 2), countdown=10)
        note.delay({"a": (1,)}, "ü")
        yield tasks


def test_what_was_sent_is_found_by_all_that_is_said_of_it(sent):
    assert sent.assert_sent(add) is sent[0]
    assert sent.assert_sent("kit.add", countdown=10) is sent[1]
    assert sent.assert_sent(add, (1, 2), {}, queue="mail", times=1) is sent[0]
    # As a worker gets them: JSON has no tuples.
    sent.assert_sent(note, [{"a": (1,)}, "ü"])
    sent.assert_sent(note, [{"a": [1]}, "ü"])
    sent.assert_not_sent(add, (2, 1))
    sent.assert_not_sent(total)
    assert [task.queue for task in sent.named(add)] == ["mail", "celery"]


LISTED = """These were sent:
  1. kit.add(1, 2) to mail
  2. kit.add(1, 2) to celery, countdown=10
  3. kit.note({'a': [1]}, 'ü') to celery"""


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (lambda sent: sent.assert_sent(total), "kit.total was not sent. "),
        (lambda sent: sent.assert_sent(add, (2,)), "kit.add(2, **…) was not sent. "),
        (lambda sent: sent.assert_sent(add, kwargs={"y": 1}), "kit.add(…, y=1) was not sent. "),
        (lambda sent: sent.assert_sent(add, queue="x"), "kit.add with queue='x' was not sent. "),
        (lambda sent: sent.assert_sent(add, times=1), "kit.add was sent 2 times, not 1 time. "),
        (lambda sent: sent.assert_not_sent(add), "kit.add was sent. "),
        (lambda sent: sent.assert_nothing_sent(), "A task was sent. "),
    ],
)
def test_a_failed_assertion_says_what_was_wanted_and_lists_what_was_sent(sent, check, said):
    with pytest.raises(AssertionError) as caught:
        check(sent)
    assert str(caught.value) == said + LISTED


@pytest.mark.parametrize("times", [0, -1])
def test_what_is_to_be_sent_no_time_is_asked_of_assert_not_sent(sent, times):
    for task in (add, total):
        with pytest.raises(ValueError, match=rf"times = {times}.*assert_not_sent"):
            sent.assert_sent(task, times=times)


def test_what_was_sent_can_be_forgotten(sent):
    sent.clear()
    sent.assert_nothing_sent()
    with pytest.raises(AssertionError, match=r"^kit\.add was not sent\. No task was sent\.$"):
        sent.assert_sent(add)


# running


def test_tasks_run_in_order_with_what_they_send_after_them():
    with capture_tasks() as tasks:
        parent.delay(5)
        note.delay("last")
        ran = tasks.run()
        assert noted == [("last",), (5,)]
        assert [sent.name for sent in ran] == ["kit.parent", "kit.note", "kit.add", "kit.note"]
        assert [sent.state for sent in tasks] == ["SUCCESS"] * 4
        child = tasks.assert_sent(add, [5])
        assert (child.parent_id, child.root_id) == (tasks[0].id, tasks[0].id)
        assert tasks[0].result.children[0].id == child.id
        assert tasks.pending == []


def test_one_task_can_be_run_by_itself():
    with capture_tasks() as tasks:
        results = [add.delay(number, 1) for number in range(2)]
        assert tasks[1].run() == 2
        assert (results[1].get(), tasks.pending) == (2, [tasks[0]])
        with pytest.raises(AssertionError, match=r"has run already: kit\.add\(1, 1\) to celery \(SUCCESS\)"):
            tasks[1].run()


def test_an_error_reaches_the_test_and_is_the_result():
    with capture_tasks() as tasks:
        result = fail.delay("sold out")
        add.delay(1)
        with pytest.raises(ValueError, match="sold out"):
            tasks.run()
        assert (tasks[0].state, tasks[1].state) == ("FAILURE", None)
        with pytest.raises(ValueError, match="sold out"):
            result.get()
        assert "fail" in result.traceback


def test_errors_can_be_looked_at_instead():
    with capture_tasks() as tasks:
        fail.delay("sold out")
        add.delay(1)
        tasks.run(throw=False)
    assert [sent.state for sent in tasks] == ["FAILURE", "SUCCESS"]
    assert str(tasks[0].exception) == "sold out"


def test_retries_are_sent_anew_and_run_without_waiting():
    with capture_tasks() as tasks:
        result = flaky.delay(2)
        tasks.run()
        assert result.get() == 2
    assert [(sent.state, sent.retries) for sent in tasks] == [("RETRY", 0), ("RETRY", 1), ("SUCCESS", 2)]
    assert {sent.id for sent in tasks} == {result.id}
    assert tasks[1].options["countdown"] == 3600
    assert not isinstance(tasks[0].exception, Retry)


def test_retries_end_at_max_retries():
    with capture_tasks() as tasks:
        flaky.delay(9)
        with pytest.raises(OSError, match="not yet"):
            tasks.run()
    assert [sent.state for sent in tasks] == ["RETRY"] * 3 + ["FAILURE"]


def test_tasks_that_send_each_other_for_ever_are_stopped(celery_app):
    @celery_app.task(name="kit.endless", shared=False)
    def endless():
        endless.delay()

    with capture_tasks() as tasks:
        endless.delay()
        with pytest.raises(AssertionError, match=r"20 tasks have run, and there are more: kit\.endless\(\)"):
            tasks.run(limit=20)


@pytest.mark.django_db
@pytest.mark.parametrize("store_results", [False, True])
def test_chains_groups_chords_and_callbacks_run_as_with_workers(store_results):
    with capture_tasks(store_results=store_results) as tasks:
        results = [
            chain(add.s(1, 2), add.s(3), add.s(4)).delay(),
            group(add.s(i, i) for i in range(3)).delay(),
            chord([add.s(i, i) for i in range(3)], total.s()).delay(),
            chain(group(add.s(i, i) for i in range(2)), total.s(), add.s(1)).delay(),
        ]
        add.apply_async((1, 1), link=note.s("linked"))
        fail.apply_async(("no",), link_error=note.s("errback"))
        tasks.run(throw=False)
        assert [result.get() for result in results] == [10, [0, 2, 4], 6, 3]
    assert (2, "linked") in noted
    assert any("errback" in args for args in noted)


@pytest.mark.django_db
@pytest.mark.parametrize("store_results", [False, True])
def test_a_part_that_fails_fails_its_chord(store_results):
    with capture_tasks(store_results=store_results) as tasks:
        result = chord([add.s(1, 1), fail.s("no")], total.s()).delay()
        tasks.run(throw=False)
        tasks.assert_not_sent(total)
        with pytest.raises(Exception, match="no"):
            result.get()


@pytest.mark.parametrize("send", [lambda: add.delay(1), lambda: group(add.s(1), add.s(2)).delay()])
def test_the_result_of_a_task_that_has_not_run_is_not_waited_for(send):
    with capture_tasks():
        result = send()
        with pytest.raises(AssertionError, match="captured and has not run"):
            result.get()
        assert result.ready() is False if hasattr(result, "ready") else True


def test_what_was_captured_can_be_run_after_the_block(celery_app, no_network):
    celery_app.conf.result_backend = "redis://192.0.2.1"
    with capture_tasks() as tasks:
        result = chord([add.s(1, 1), flaky.s(1)], total.s()).delay()
    tasks.run()
    assert result.get() == 3
    assert tasks.named(total)[0].result.get() == 3
    assert "send_task" not in vars(celery_app)


def test_a_task_may_not_wait_for_another():
    with capture_tasks() as tasks:
        waits.delay()
        with pytest.raises(RuntimeError, match=r"Never call result\.get"):
            tasks.run()


# rows


@pytest.mark.django_db
def test_nothing_is_stored_unless_asked_for():
    with capture_tasks() as tasks:
        add.delay(1)
        tasks.run()
    assert TaskMeta.objects.count() == 0


@pytest.mark.django_db
def test_rows_are_those_of_a_worker_if_asked_for():
    with capture_tasks(store_results=True) as tasks:
        add.apply_async((1,), {"y": 2}, queue="mail")
        fail.delay("sold out")
        flaky.delay(1)
        tasks.run(throw=False)
    rows = {row.name: row for row in TaskMeta.objects.all()}
    assert len(rows) == 3
    row = rows["kit.add"]
    assert (row.status, row.result, row.args, row.kwargs, row.queue, row.retries) == (
        "SUCCESS",
        3,
        [1],
        {"y": 2},
        "mail",
        0,
    )
    assert row.worker.startswith("test@")
    assert row.created <= row.started <= row.finished
    assert row.runtime >= 0
    assert rows["kit.fail"].status == "FAILURE"
    assert "sold out" in rows["kit.fail"].traceback
    assert (rows["kit.flaky"].status, rows["kit.flaky"].retries) == ("SUCCESS", 1)


# on_commit


@pytest.mark.django_db
def test_what_waits_for_a_commit_is_sent_when_the_callbacks_run(django_capture_on_commit_callbacks):
    with capture_tasks() as tasks:
        with django_capture_on_commit_callbacks(execute=True):
            with transaction.atomic():
                note.delay_on_commit(1)
            tasks.assert_nothing_sent()
        tasks.assert_sent(note, [1])
        note.delay_on_commit(2)
        with pytest.raises(AssertionError, match=r"Callbacks of on_commit\(\) run in"):
            tasks.assert_sent(note, [2])


@pytest.mark.django_db
def test_the_callbacks_run_at_the_end_of_the_block_if_asked_for():
    with capture_tasks(on_commit=True) as tasks:
        sends_on_commit.delay_on_commit(1)
        with transaction.atomic():
            note.delay_on_commit("rolled back")
            transaction.set_rollback(True)
        tasks.assert_nothing_sent()
    assert [sent.name for sent in tasks] == ["kit.on_commit"]
    tasks.run()
    assert noted == [(1,)]


@pytest.mark.django_db
def test_the_callbacks_of_tasks_that_run_are_run_too():
    with capture_tasks(on_commit=True) as tasks:
        sends_on_commit.delay(1)
        tasks.run()
        assert noted == [(1,)]
    tasks.assert_sent(note, times=1)
    with capture_tasks() as tasks:
        sends_on_commit.delay(1)
        tasks.run()
        tasks.assert_not_sent(note)


@pytest.mark.django_db
def test_callbacks_that_add_others_and_robust_ones_run_as_at_a_commit(caplog):
    def adds():
        note.delay_on_commit("added")

    with capture_tasks(on_commit=True) as tasks:
        transaction.on_commit(lambda: 1 / 0, robust=True)
        transaction.on_commit(adds)
    tasks.assert_sent(note, ["added"], times=1)
    assert "A robust callback" in caplog.text
    with pytest.raises(ZeroDivisionError), capture_tasks(on_commit=True):
        transaction.on_commit(lambda: 1 / 0)


@pytest.mark.django_db
def test_callbacks_of_a_block_that_fails_do_not_run():
    with pytest.raises(EncodeError), capture_tasks(on_commit=True) as tasks:
        note.delay_on_commit(1) or add.delay(object())
    tasks.assert_nothing_sent()


@pytest.mark.django_db(transaction=True)
def test_where_commits_are_real_they_send_at_once():
    assert not connection.in_atomic_block
    with capture_tasks(on_commit=True) as tasks:
        with transaction.atomic():
            note.delay_on_commit(1)
            tasks.assert_nothing_sent()
        tasks.assert_sent(note, [1], times=1)
    assert len(tasks) == 1


# mixin and fixtures


@pytest.mark.usefixtures("celery_app")
class TestOrders(CapturedTasksMixin, TestCase):
    def setUp(self):
        self.tasks = self.start_capturing_tasks()

    def test_the_whole_test_is_captured(self):
        add.delay(1)
        self.tasks.assert_sent(add, [1])

    def test_a_block_may_run_its_callbacks(self):
        with self.capture_tasks(on_commit=True) as tasks:
            add.delay_on_commit(2)
        tasks.assert_sent(add, [2])
        self.tasks.assert_nothing_sent()

    def test_the_mixin_has_the_helper_for_schedules(self):
        self.assert_runs_at(crontab(minute=0), ["2026-01-01 01:00", "2026-01-01 02:00"])


@pytest.mark.usefixtures("celery_app")
class TestWithoutDatabase(CapturedTasksMixin, SimpleTestCase):
    def test_no_database_is_needed(self):
        with self.capture_tasks() as tasks:
            add.delay(1, 2)
            tasks.run()
        assert tasks[0].state == "SUCCESS"


def test_capturing_ends_with_the_test(celery_app):
    class Example(CapturedTasksMixin, SimpleTestCase):
        def runTest(self):
            self.start_capturing_tasks()
            assert "send_task" in vars(celery_app)

    result = Example().run()
    assert result.wasSuccessful(), result.failures + result.errors
    assert "send_task" not in vars(celery_app)


def test_the_fixture_gives_the_context_manager(request):
    with request.getfixturevalue("capture_tasks")() as tasks:
        add.delay(1)
    tasks.assert_sent(add, times=1)


@pytest.mark.parametrize("turn", [1, 2])
def test_the_other_fixture_captures_all_of_a_test_and_begins_anew(sent_tasks, turn):
    sent_tasks.assert_nothing_sent()
    add.delay(turn)
    sent_tasks.assert_sent(add, [turn], times=1)


# when a schedule fires


def test_a_crontab_fires_by_the_clocks_of_its_zone_or_the_apps(celery_app):
    celery_app.conf.timezone = "Europe/Brussels"
    assert_runs_at(crontab(minute=30, hour=2), ["2026-03-28 02:30", "2026-03-29 03:00", "2026-03-30 02:30"])
    assert_runs_at(ZonedCrontab("0", "9", zone="Asia/Kolkata"), ["2026-01-01T03:30+00:00", "2026-01-02T03:30+00:00"])


def test_intervals_count_from_where_one_looks():
    assert_runs_at(timedelta(minutes=10), ["2026-01-01 00:10", "2026-01-01 00:20"], after="2026-01-01 00:00")
    assert_runs_at(crontab(minute={0, 30}), ["2026-01-01 00:00", "2026-01-01 00:30"])
    assert_runs_at(600, ["2026-01-01 00:10"], after="2026-01-01 00:00", until="2026-01-01 00:19")


def test_other_instants_are_an_error_that_lists_both():
    with pytest.raises(AssertionError) as caught:
        assert_runs_at(crontab(minute="*/30"), ["2026-01-01 00:00", "2026-01-01 01:00"])
    assert "expected: 2026-01-01 00:00:00+01:00, 2026-01-01 01:00:00+01:00\n" in str(caught.value)
    assert "fires at: 2026-01-01 00:00:00+01:00, 2026-01-01 00:30:00+01:00, 2026-01-01 01" in str(caught.value)
    with pytest.raises(AssertionError, match="fires at: never"):
        assert_runs_at(crontab(minute=0, hour=0), ["2026-01-01 00:01"])


def test_that_nothing_fires_needs_both_ends():
    assert_runs_at(crontab(hour=0, minute=0), [], after="2026-01-01 00:00", until="2026-01-01 23:59")
    with pytest.raises(ValueError, match="'after' and 'until'"):
        assert_runs_at(crontab(), [])
    with pytest.raises(ValueError, match="no instant"):
        assert_runs_at(crontab(), ["tomorrow"])
    with pytest.raises(ValueError, match="no schedule"):
        assert_runs_at(object(), ["2026-01-01 00:00"])


def test_events_of_the_sun_and_single_instants():
    pytest.importorskip("ephem")
    moment = datetime.datetime(2026, 1, 1, tzinfo=timezone.utc)
    assert_runs_at(moment, [moment], until="2030-01-01 00:00")
    with pytest.raises(AssertionError, match="fires at: 2026-06-21"):
        assert_runs_at(solar("sunrise", 50.8, 4.4), [], after="2026-06-21 00:00", until="2026-06-21 23:00")


def test_a_clocked_schedule_of_the_settings_fires_once(celery_app):
    moment = datetime.datetime(2026, 1, 1, tzinfo=timezone.utc)
    assert_runs_at(Clocked(moment), [moment], until="2030-01-01 00:00")
    assert_runs_at({"task": "kit.add", "schedule": Clocked(moment)}, [moment], until="2030-01-01 00:00")
    with pytest.raises(AssertionError, match="fires at: never"):
        assert_runs_at(Clocked(moment), [moment], after=moment)


@pytest.mark.django_db
def test_rows_are_asked_with_their_options(django_assert_num_queries):
    nightly = CrontabSchedule.objects.create(minute="0", hour="3", timezone="Europe/Brussels")
    row = PeriodicTask.objects.create(name="nightly", task="kit.add", crontab=nightly)
    wanted = ["2020-01-01 03:00", "2020-01-02 03:00"]
    assert_runs_at(row, wanted)
    with django_assert_num_queries(2):
        assert_runs_at("nightly", wanted)
    row.start_time = datetime.datetime(2020, 1, 2, tzinfo=timezone.utc)
    row.expires = datetime.datetime(2020, 1, 4, tzinfo=timezone.utc)
    assert_runs_at(row, ["2020-01-02 03:00", "2020-01-03 03:00"], after="2020-01-01 00:00", until="2020-02-01 00:00")
    row.enabled = False
    assert_runs_at(row, [], after="2020-01-01 00:00", until="2020-02-01 00:00")


def test_rows_need_not_be_saved():
    every = IntervalSchedule(every=2, period="hours")
    row = PeriodicTask(name="often", interval=every)
    assert_runs_at(row, ["2026-01-01 02:00", "2026-01-01 04:00"], after="2026-01-01 00:00")
    clocked = ClockedSchedule(clocked_time=datetime.datetime(2026, 1, 1, tzinfo=timezone.utc))
    once = PeriodicTask(name="once", clocked=clocked)
    assert_runs_at(once, ["2026-01-01T00:00+00:00"], until="2030-01-01 00:00")


@pytest.mark.django_db
def test_entries_of_the_settings_are_asked_by_name_or_as_they_are(celery_app):
    entry = {"task": "kit.add", "schedule": crontab(minute=15)}
    celery_app.conf.beat_schedule = {"quarter": entry}
    assert_runs_at("quarter", ["2026-01-01 00:15", "2026-01-01 01:15"])
    assert_runs_at(entry, ["2026-01-01 00:15"])
    with pytest.raises(AssertionError, match="has an entry 'none'"):
        assert_runs_at("none", ["2026-01-01 00:15"])


@override_settings(USE_TZ=False)
def test_without_time_zones_instants_are_local(celery_app):
    celery_app.conf.timezone = "Europe/Brussels"
    assert_runs_at(crontab(minute=0, hour=3), [datetime.datetime(2026, 1, 1, 3), datetime.datetime(2026, 1, 2, 3)])


def test_sun_rows_fire():
    pytest.importorskip("ephem")
    row = PeriodicTask(name="dawn", solar=SolarSchedule(event="sunrise", latitude=50, longitude=4))
    with pytest.raises(AssertionError, match="fires at: 2026-06-21"):
        assert_runs_at(row, [], after="2026-06-21 00:00", until="2026-06-21 23:00")

"""Is everything all right? What the overview calls a problem, and what it doesn't."""

from __future__ import annotations

from datetime import timedelta

import pytest

from djcelery import queues, utils
from djcelery.models import MalformedEvent, PeriodicRun, PeriodicTask, WorkerState
from djcelery.snapshot.upkeep import Upkeep
from tests.db.history import add, camera, entry, hour, lease, minute, overdue_entry, task, worker

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("broker_said")]

PAGE = "/admin/djcelery/overview/"


def problems(client):
    return [problem for problem, _page in client.get(PAGE).context["problems"]]


def said(client):
    return " ".join(f"{problem.what} {problem.todo}" for problem in problems(client))


def test_when_everything_runs_one_line_says_so(admin_client, all_well):
    lease()
    entry()
    assert problems(admin_client) == []
    shown = admin_client.get(PAGE).content.decode()
    assert "Everything is all right." in shown
    assert "1 worker is online" in shown
    assert "beat sends, and nothing is overdue" in shown


def test_a_broker_that_is_away_is_a_problem(admin_client, broker_said, all_well):
    broker_said.append(queues.Broker(problem="refused"))
    assert "The broker doesn't answer: refused" in said(admin_client)


def test_a_queue_that_nobody_takes_from_is_a_problem(admin_client, broker_said, all_well):
    broker_said.append(queues.Broker((queues.Queue("mail", 3, 0), queues.Queue("idle", 0, 0), queues.Queue("x", 3, 1))))
    (problem,) = problems(admin_client)
    assert problem.what == "Nobody takes from the queue mail, where 3 messages wait."
    assert "-Q mail" in problem.todo


def test_an_old_message_is_a_problem(admin_client, broker_said, all_well):
    broker_said.append(queues.Broker((queues.Queue("mail", 3, None, 3700.0), queues.Queue("x", 3, None, 10.0))))
    assert "The oldest message in the queue mail was sent 1 hour ago." in said(admin_client)
    assert len(problems(admin_client)) == 1


def test_without_a_running_camera_nothing_is_seen(admin_client, celery_app):
    assert "No camera has ever written here" in said(admin_client)
    stopped = camera(shutter_at=utils.now() - timedelta(minutes=7))
    assert "No camera is running: cam@h wrote 7 minutes ago." in said(admin_client)
    stopped.shutter_at = stopped.stopped_at = utils.now()
    stopped.save()
    assert "No camera is running" in said(admin_client)


def test_a_slow_camera_is_not_taken_for_dead(admin_client, all_well):
    camera(name="slow", frequency=100, shutter_at=utils.now() - timedelta(seconds=200))
    assert problems(admin_client) == []


def test_a_camera_that_hears_nothing_is_a_problem(admin_client, celery_app):
    camera(event_at=None)
    assert "No events arrive. Start workers with events: python manage.py celeryd -E." in said(admin_client)


def test_a_slow_camera_is_not_taken_for_deaf(admin_client, celery_app):
    camera(frequency=600, event_at=utils.now() - timedelta(minutes=9))
    assert problems(admin_client) == []


def test_what_a_camera_reports_is_a_problem(admin_client, all_well):
    camera(name="b", error="database is locked\n" * 50)
    (problem,) = problems(admin_client)
    assert problem.what.startswith("The camera b reports: database is locked database")
    assert len(problem.what) < 300


def test_no_worker_online_is_a_problem(admin_client, all_well):
    WorkerState.objects.update(last_heartbeat=utils.now() - timedelta(hours=1))
    assert "No worker is online." in said(admin_client)


def test_a_worker_that_fell_silent_is_a_problem_for_a_day_and_one_that_said_goodbye_is_none(admin_client, all_well):
    worker("ended@h", ago_s=600, offline_at=utils.now() - timedelta(seconds=599))
    worker("old@h", ago_s=90_000)
    assert problems(admin_client) == []
    for name in "abcde":
        worker(f"{name}@h", ago_s=600 + ord(name))
    assert "a@h, b@h, c@h and 2 more fell silent" in said(admin_client)


def test_a_worker_without_events_is_a_problem(admin_client, all_well):
    mute = worker("mute@h", processed=100)
    worker("idle@h", processed=0)
    worker("fine@h", processed=100, seen=100, missed=3)
    worker("lossy@h", processed=100, seen=100, missed=90)
    assert "mute@h ran tasks, and no event of one came. Start workers with -E" in said(admin_client)
    assert "Most tasks of lossy@h ran without an event. Start workers with -E" in said(admin_client)
    task("2", worker=mute)
    assert len(problems(admin_client)) == 1


def test_what_earlier_processes_of_a_worker_missed_is_no_problem_of_the_present_one(admin_client, all_well):
    began = utils.now() - timedelta(minutes=1)
    restarted = worker("restarted@h", processed=5, seen=5, missed=50, online_at=began)
    for number in range(2):
        task(f"r{number}", worker=restarted)
    for number in range(20):
        task(f"before{number}", worker=restarted, ago_s=600)
    assert "Most tasks of restarted@h ran without an event." in said(admin_client)
    task("r2", worker=restarted)
    assert problems(admin_client) == []


def test_a_worker_that_runs_for_longer_than_tasks_are_kept_is_not_said_to_send_no_events(admin_client, all_well):
    old = worker("old@h", processed=15_000, seen=9000, missed=6000, online_at=utils.now() - timedelta(days=10))
    task("latest", worker=old)
    assert problems(admin_client) == []


def test_a_wrong_clock_is_a_problem(admin_client, all_well):
    worker("skewed@h", clock_skew=-61.0)
    worker("fine@h", clock_skew=0.2)
    assert "The clock of skewed@h is wrong" in said(admin_client)


def test_a_beat_that_is_gone_is_a_problem_if_periodic_tasks_wait_for_it(admin_client, all_well):
    gone = lease(left_s=-120)
    assert problems(admin_client) == []
    entry()
    assert "No beat is running: the last one led until 2 minutes ago." in said(admin_client)
    gone.delete()
    assert "no beat has ever run here" in said(admin_client)


def test_an_overdue_entry_is_a_problem_unless_beat_passed_it_over(admin_client, all_well):
    lease()
    made = overdue_entry()
    (problem,) = problems(admin_client)
    assert problem.what == "nightly is overdue."
    assert "nightly" in admin_client.get(PAGE).content.decode()
    now = utils.now()
    PeriodicRun.objects.create(
        periodic_task_id=made.pk,
        name="nightly",
        scheduled_at=now,
        task_id="x",
        claimed_at=now,
        outcome="skipped",
        token=1,
    )
    assert problems(admin_client) == []


def test_an_entry_that_is_due_now_or_disabled_is_not_overdue(admin_client, all_well):
    lease()
    overdue_entry("just now", ago_s=90)
    PeriodicTask.objects.filter(pk=overdue_entry("off").pk).without_notes().update(enabled=False)
    # Both count from the change of the interval that they share.
    assert [problem.what for problem in problems(admin_client) if "overdue" in problem.what] == []


def test_entries_that_beat_holds_out_are_a_problem(admin_client, all_well):
    lease()
    entry("bad", last_error="args is not JSON")
    entry("disabled", last_error="args is not JSON", enabled=False)
    (problem,) = problems(admin_client)
    assert problem.what == "Beat doesn't run bad, because of an error."


def test_runs_that_wait_for_the_broker_are_a_problem(admin_client, all_well):
    lease()
    old = utils.now() - timedelta(minutes=5)
    PeriodicRun.objects.create(
        periodic_task_id=1, name="n", scheduled_at=old, task_id="x", claimed_at=old, error="refused", token=1
    )
    assert "Beat could not send 1 run so far: refused" in said(admin_client)


def test_many_failures_are_a_problem_and_few_are_not(admin_client, all_well):
    add(minute(1), name="shop.bad", state="FAILURE", count=4)
    assert problems(admin_client) == []
    add(minute(2), name="shop.bad", state="FAILURE", count=6)
    (problem,) = problems(admin_client)
    assert problem.what == "10 tasks failed, 50 % of all that ended; most of them shop.bad."
    add(minute(3), count=1000)
    assert problems(admin_client) == []


def test_a_name_has_most_failures_only_if_it_has_more_than_half(admin_client, all_well):
    # None of the twenty names that run most often failed.
    for number in range(20):
        add(minute(1), name=f"shop.busy{number}", count=5)
    for name, count in (("shop.a", 20), ("shop.b", 15), ("shop.c", 5)):
        add(minute(1), name=name, state="FAILURE", count=count)
    (problem,) = problems(admin_client)
    assert problem.what == "40 tasks failed, 27 % of all that ended."
    add(minute(2), name="shop.b", state="FAILURE", count=6)
    assert "of all that ended." in said(admin_client)
    add(minute(3), name="shop.b", state="FAILURE", count=10)
    assert "56 tasks failed, 34 % of all that ended; most of them shop.b." in said(admin_client)


def test_lost_tasks_are_a_problem_for_a_day(admin_client, all_well):
    task("old", "LOST", ago_s=90_000)
    add(hour(26), state="LOST", period="hour")
    assert problems(admin_client) == []
    task("2", "LOST", ago_s=60)
    add(hour(1), state="LOST", period="hour")
    assert "1 task of the last day is lost" in said(admin_client)


def test_a_task_that_ran_for_days_is_lost_when_its_worker_dies(admin_client, all_well):
    gone = worker("gone@h", ago_s=3600, offline_at=utils.now() - timedelta(hours=1))
    task("2", "STARTED", ago_s=200_000, worker=gone)
    assert Upkeep(utils.now() - timedelta(days=1)).mark_lost(utils.now()) == 1
    assert "1 task of the last day is lost" in said(admin_client)


def test_a_lost_task_that_was_heard_of_again_is_lost_no_more(admin_client, all_well):
    add(hour(1), state="LOST", period="hour")
    task("2", "SUCCESS", ago_s=60)
    assert problems(admin_client) == []


def test_a_lost_task_that_succeeds_after_all_has_ended_once(admin_client, all_well):
    add(minute(1), name="shop.redelivered", state="LOST", count=6)
    add(minute(1), name="shop.redelivered", count=6)
    add(minute(1), name="shop.redelivered", state="FAILURE", count=2)
    context = admin_client.get(PAGE).context
    # Ten are those of all_well.
    assert context["found"].finished == 18
    assert context["found"].totals["LOST"] == 6
    (row,) = (one for one in context["names"] if "redelivered" in one["name"])
    assert (row["finished"], row["failed_share"]) == ("8", "25")
    assert context["found"].per_minute * 5 >= 18
    assert context["found"].per_minute * 4 <= 18


def test_tasks_that_wait_for_their_start_too_long_are_a_problem(admin_client, all_well):
    task("eta", "RECEIVED", ago_s=7200, eta=utils.now() + timedelta(hours=1))
    task("fresh", "RECEIVED", ago_s=60)
    assert problems(admin_client) == []
    task("2", "RECEIVED", ago_s=7200)
    assert "1 task was received over an hour ago and not started." in said(admin_client)


def test_malformed_events_are_a_problem_for_an_hour(admin_client, all_well):
    for ago in (30, 7200):
        MalformedEvent.objects.create(
            seen_at=utils.now() - timedelta(seconds=ago), camera="c", reason="no uuid", body="{}"
        )
    assert "1 malformed event arrived within the last hour." in said(admin_client)


def test_errors_come_before_warnings(admin_client, broker_said, all_well):
    task("2", "RECEIVED", ago_s=7200)
    broker_said.append(queues.Broker((queues.Queue("a", 1, None, 999.0), queues.Queue("b", 1, 0))))
    assert [problem.level for problem in problems(admin_client)] == ["error", "warning", "warning"]

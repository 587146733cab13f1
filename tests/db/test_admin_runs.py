"""The page of the runs of periodic tasks: what it shows, who may see it, and how little it reads."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.html import escape

from djcelery.models import PeriodicRun, TaskMeta
from tests.db.schedules import NOON, make, run

pytestmark = pytest.mark.django_db

PAGE = "/admin/djcelery/periodictask/"
RUNS = "/admin/djcelery/periodicrun/"
XSS = "<script>alert(1)</script>"


def listed_runs(client, **params):
    return [row.task_id for row in client.get(RUNS, params).context["cl"].result_list]


def test_runs_can_be_seen_but_neither_added_nor_changed_nor_deleted(admin_client):
    row = run(make())
    assert admin_client.get(RUNS).status_code == 200
    assert admin_client.get(f"{RUNS}add/").status_code == 403
    assert admin_client.post(f"{RUNS}{row.pk}/change/", {}).status_code == 403
    assert admin_client.post(f"{RUNS}{row.pk}/delete/", {"post": "yes"}).status_code == 403
    assert PeriodicRun.objects.get() == row


def test_who_may_not_view_runs_is_refused(person):
    row = run(make())
    client = person("view_periodictask", "change_periodictask")
    assert client.get(RUNS).status_code == 403
    assert client.get(f"{RUNS}{row.pk}/change/").status_code == 403


def test_who_may_view_runs_sees_them(person):
    row = run(make())
    client = person("view_periodicrun")
    assert listed_runs(client) == ["id-1"]
    assert client.get(f"{RUNS}{row.pk}/change/").status_code == 200


def test_a_run_shows_its_instant_its_lateness_its_state_and_its_result(admin_client):
    row = run(make(), sent_at=NOON + timedelta(seconds=0.25))
    result = TaskMeta.objects.create(task_id="id-1", status="RETRY")
    for page in (RUNS, f"{RUNS}{row.pk}/change/"):
        text = admin_client.get(page).content.decode()
        for shown in ("2026-06-01 14:00:00", "0.250 s", "RETRY", f"/admin/djcelery/taskmeta/{result.pk}/change/"):
            assert shown in text


def test_a_run_that_was_dropped_says_why_and_one_without_a_result_has_no_link(admin_client):
    row = run(make(), outcome=PeriodicRun.DROPPED, error=XSS)
    text = admin_client.get(f"{RUNS}{row.pk}/change/").content.decode()
    assert escape(XSS) in text
    assert "dropped" in text
    assert XSS not in text
    assert "/admin/djcelery/taskmeta/1" not in admin_client.get(RUNS).content.decode()


def test_a_run_whose_task_is_gone_can_be_opened(admin_client):
    task = make("gone")
    row = run(task)
    page = f"{RUNS}{row.pk}/change/"
    assert f"{PAGE}{row.periodic_task_id}/change/" in admin_client.get(page).content.decode()
    task.delete()
    assert f"{PAGE}{row.periodic_task_id}/change/" not in admin_client.get(page).content.decode()
    assert listed_runs(admin_client, task=row.periodic_task_id) == ["id-1"]


def test_the_newest_run_comes_first_and_runs_are_found_by_task_outcome_name_and_id(admin_client):
    night, day = make("nightly"), make("daily")
    run(night, "n-1", sent_at=NOON)
    run(day, "d-1", sent_at=NOON)
    run(night, "n-3", scheduled_at=NOON + timedelta(hours=2))
    run(night, "n-2", scheduled_at=NOON + timedelta(hours=1), outcome=PeriodicRun.SKIPPED)
    assert listed_runs(admin_client) == ["n-2", "n-3", "d-1", "n-1"]
    assert listed_runs(admin_client, task=night.pk) == ["n-3", "n-2", "n-1"]
    assert listed_runs(admin_client, task="x") == ["n-2", "n-3", "d-1", "n-1"]
    assert listed_runs(admin_client, q="") == ["n-2", "n-3", "d-1", "n-1"]
    assert listed_runs(admin_client, outcome="skipped") == ["n-2"]
    assert listed_runs(admin_client, outcome="unsent") == ["n-3"]
    assert listed_runs(admin_client, q=" night ") == ["n-3", "n-2", "n-1"]
    assert listed_runs(admin_client, q="d-1") == ["d-1"]
    assert listed_runs(admin_client, q="nobody") == []


def test_the_runs_and_their_states_are_one_query_and_nothing_counts_the_table(admin_client):
    task = make()
    run(task, "id-0", sent_at=NOON)
    admin_client.get(RUNS)
    with CaptureQueriesContext(connection) as few:
        admin_client.get(RUNS)
    for number in range(1, 30):
        run(task, f"id-{number}", scheduled_at=NOON + timedelta(hours=number), sent_at=NOON, error="x")
        TaskMeta.objects.create(task_id=f"id-{number}", status="SUCCESS")
    with CaptureQueriesContext(connection) as many:
        admin_client.get(RUNS)
    # The session, the person, the bounded count, the rows.
    assert len(many) == len(few) == 4
    *_others, count, rows = [query["sql"].replace("`", '"') for query in many.captured_queries]
    assert "LIMIT 10001" in count
    assert "celery_taskmeta" not in count
    assert "celery_taskmeta" in rows
    assert '"error"' not in rows


def test_the_runs_are_shown_without_use_tz(admin_client, settings):
    row = run(make(), sent_at=NOON)
    settings.USE_TZ = False
    assert admin_client.get(RUNS).status_code == 200
    assert admin_client.get(f"{RUNS}{row.pk}/change/").status_code == 200


def test_a_run_is_named_by_its_instant_in_the_project_s_zone_to_the_second():
    row = run(make("nightly"), scheduled_at=NOON + timedelta(microseconds=5))
    assert str(row) == "nightly at 2026-06-01 14:00:00+02:00: unsent"

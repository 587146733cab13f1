"""The pages of the tables of times: searching them, who uses a row, and why it can't be deleted."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.html import escape

from djcelery.admin.times import MAX_USERS
from djcelery.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule
from tests.db.schedules import TIMES, make

pytestmark = pytest.mark.django_db

XSS = "<script>alert(1)</script>"
MODELS = {"interval": IntervalSchedule, "crontab": CrontabSchedule, "solar": SolarSchedule, "clocked": ClockedSchedule}


def page(kind, rest=""):
    return f"/admin/djcelery/{kind}schedule/{rest}"


def interval(every=1, period="hours"):
    return IntervalSchedule.objects.create(every=every, period=period)


def crontab(line, zone=None):
    fields = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
    return CrontabSchedule.objects.create(**dict(zip(fields, line.split(), strict=True)), timezone=zone)


def sun(event="sunset", latitude=51, longitude=4):
    return SolarSchedule.objects.create(event=event, latitude=latitude, longitude=longitude)


def moment(*parts):
    return ClockedSchedule.objects.create(clocked_time=datetime(*parts, tzinfo=timezone.utc))


def found(client, kind, term):
    """What the field of a periodic task offers for *term*, the newest first."""
    query = {"app_label": "djcelery", "model_name": "periodictask", "field_name": kind, "term": term}
    answer = client.get("/admin/autocomplete/", query)
    assert answer.status_code == 200
    offered = [int(result["id"]) for result in answer.json()["results"]]
    listed = [row.pk for row in client.get(page(kind), {"q": term}).context["cl"].result_list]
    assert listed == offered
    return offered


# -- searching -------------------------------------------------------------------------------------


def test_an_interval_is_found_by_number_and_unit(admin_client):
    minutes, hours, ten = interval(1, "minutes"), interval(1, "hours"), interval(10, "minutes")
    for term, rows in (
        ("", [ten, hours, minutes]),
        ("10", [ten]),
        ("min", [ten, minutes]),
        ("every 10 minutes", [ten]),
        ("1 hour", [hours]),
        ("HOURS", [hours]),
        ("7", []),
        ("parsecs", []),
        ("9" * 40, []),
        ("²", []),
    ):
        assert found(admin_client, "interval", term) == [row.pk for row in rows], term


def test_a_crontab_is_found_by_its_fields_in_order_by_a_time_or_by_its_zone(admin_client):
    night, work = crontab("30 2 * * *"), crontab("30 7 mon-fri * *", "Europe/Brussels")
    padded, often = crontab("05 07 * * *"), crontab("*/5 * * * *", "Asia/Kolkata")
    for term, rows in (
        ("30", [work, night]),
        ("30 7", [work]),
        ("30 7 mon-fri * *", [work]),
        ("02:30", [night]),
        ("7:05", [padded]),
        ("*/5", [often]),
        ("asia", [often]),
        ("30 europe/", [work]),
        ("mars", []),
        ("a b c d e f g h i j", []),
    ):
        assert found(admin_client, "crontab", term) == [row.pk for row in rows], term


def test_an_event_of_the_sun_is_found_by_its_name_and_the_beginning_of_its_place(admin_client):
    ghent, ushuaia = sun("sunset", 51.05, 3.72), sun("dawn_civil", -54.8, -68.3)
    for term, rows in (
        ("sunset", [ghent]),
        ("civil", [ushuaia]),
        ("dawn", [ushuaia]),
        ("51", [ghent]),
        ("51.05 3.7", [ghent]),
        ("51.05, 3.7", [ghent]),
        ("51.1", []),
        ("-54", [ushuaia]),
        ("-54.8 -68.3", [ushuaia]),
        ("nan", []),
        ("1e400", []),
    ):
        assert found(admin_client, "solar", term) == [row.pk for row in rows], term


def test_a_fixed_time_is_found_by_its_beginning_in_the_project_s_zone(admin_client):
    june, july, year = moment(2026, 6, 1, 12, 30), moment(2026, 7, 1, 12), moment(2027, 1, 1, 12)
    # Already the next day, in Brussels.
    late = moment(2026, 6, 1, 23)
    for term, rows in (
        ("2026", [late, july, june]),
        ("2026-06", [late, june]),
        ("2026-06-01", [june]),
        ("2026-06-02", [late]),
        ("2026-06-01 14", [june]),
        ("2026-06-01 14:30", [june]),
        ("2026-06-01 14:31", []),
        ("2026-12", []),
        ("2027-", [year]),
        ("2026-13", []),
        ("9999-12", []),
        ("soon", []),
    ):
        assert found(admin_client, "clocked", term) == [row.pk for row in rows], term


def test_fixed_times_are_found_without_use_tz(admin_client, settings):
    settings.USE_TZ = False
    row = ClockedSchedule.objects.create(clocked_time=datetime(2026, 6, 1, 12, 30))
    assert found(admin_client, "clocked", "2026-06-01 12") == [row.pk]


@pytest.mark.parametrize("kind", TIMES)
def test_no_search_counts_or_sorts_the_whole_table(admin_client, kind):
    for _ in range(3):
        {"interval": interval, "solar": sun, "crontab": lambda: crontab("* * * * *")}.get(
            kind, lambda: moment(2026, 6, 1)
        )()
    query = {"app_label": "djcelery", "model_name": "periodictask", "field_name": kind, "term": ""}
    with CaptureQueriesContext(connection) as captured:
        admin_client.get("/admin/autocomplete/", query)
    table = MODELS[kind]._meta.db_table
    mine = [query["sql"].replace("`", '"') for query in captured if table in query["sql"]]
    assert all("LIMIT" in sql for sql in mine)
    assert all(f'ORDER BY "{table}"."id" DESC' in sql for sql in mine if "COUNT" not in sql)
    assert "djcelery_periodictask" not in " ".join(mine)


def test_who_may_not_view_intervals_is_offered_none(person):
    query = {"app_label": "djcelery", "model_name": "periodictask", "field_name": "interval", "term": ""}
    assert person("change_periodictask").get("/admin/autocomplete/", query).status_code == 403


# -- the pages -------------------------------------------------------------------------------------


def test_the_list_of_crontabs_says_them_in_words(admin_client):
    crontab("30 7 mon-fri * *", "Europe/Brussels")
    assert "at 07:30 on weekdays, Europe/Brussels" in admin_client.get(page("crontab")).content.decode()


@pytest.mark.parametrize("kind", TIMES)
def test_broken_and_odd_rows_are_listed_opened_and_asked_about(admin_client, kind):
    row = {
        "interval": lambda: interval(0, XSS[:24]),
        "crontab": lambda: crontab("x 99 <b> * *", XSS),
        "solar": lambda: sun(XSS[:24]),
        "clocked": lambda: moment(2026, 6, 1),
    }[kind]()
    make(XSS, **{kind: row})
    for rest in ("", f"{row.pk}/change/", f"{row.pk}/delete/"):
        response = admin_client.get(page(kind, rest))
        assert response.status_code == 200
        assert XSS not in response.content.decode()


@pytest.mark.parametrize("kind", TIMES)
def test_the_page_of_a_row_names_the_tasks_that_use_it_and_a_new_one_nobody(admin_client, kind):
    row = {
        "interval": interval,
        "crontab": lambda: crontab("* * * * *"),
        "solar": sun,
        "clocked": lambda: moment(2026, 6, 1),
    }[kind]()
    change = page(kind, f"{row.pk}/change/")
    assert "no periodic task" in admin_client.get(change).content.decode()
    assert "used_by" not in admin_client.get(page(kind, "add/")).content.decode()
    task = make(XSS, **{kind: row})
    text = admin_client.get(change).content.decode()
    assert f'<a href="/admin/djcelery/periodictask/{task.pk}/change/">{escape(XSS)}</a>' in text
    assert "and more" not in text


def test_of_many_users_a_few_are_named_and_the_rest_linked(admin_client):
    row = interval()
    tasks = [make(f"t{number}", interval=row) for number in range(MAX_USERS + 5)]
    change = page("interval", f"{row.pk}/change/")
    admin_client.get(change)
    with CaptureQueriesContext(connection) as captured:
        text = admin_client.get(change).content.decode()
    assert sum(f"/periodictask/{task.pk}/change/" in text for task in tasks) == MAX_USERS
    # The session, the person, the row, its users.
    assert len(captured) == 4
    link = f"/admin/djcelery/periodictask/?interval__id__exact={row.pk}"
    assert link in text
    assert len(admin_client.get(link).context["cl"].result_list) == MAX_USERS + 5


# -- deleting --------------------------------------------------------------------------------------


def test_a_row_that_is_used_is_not_deleted_and_the_page_says_why_and_by_whom(admin_client):
    row = interval()
    for number in range(MAX_USERS + 5):
        make(f"t{number}", interval=row)
    delete = page("interval", f"{row.pk}/delete/")
    for response in (admin_client.get(delete), admin_client.post(delete, {"post": "yes"})):
        text = response.content.decode()
        assert "Periodic tasks that use it keep it" in text
        assert text.count("/admin/djcelery/periodictask/") >= MAX_USERS
        assert "and more" in text
    assert IntervalSchedule.objects.exists()


def test_deleting_several_is_refused_if_one_is_used(admin_client):
    used, free = interval(1), interval(2)
    make(interval=used)
    data = {"action": "delete_selected", "_selected_action": [used.pk, free.pk], "post": "yes"}
    text = admin_client.post(page("interval"), data).content.decode()
    assert "Periodic tasks that use them keep them" in text
    assert IntervalSchedule.objects.count() == 2


def test_a_row_that_nobody_uses_is_deleted(admin_client):
    row = interval()
    assert "Are you sure" in admin_client.get(page("interval", f"{row.pk}/delete/")).content.decode()
    admin_client.post(page("interval", f"{row.pk}/delete/"), {"post": "yes"})
    assert not IntervalSchedule.objects.exists()


def test_a_row_that_is_used_in_the_very_moment_is_kept_and_that_is_said(admin_client, monkeypatch):
    from djcelery.admin.times import TimesAdmin

    row = interval()

    def users(self, rows):
        if not PeriodicTask.objects.exists():
            make("meanwhile", interval=row)
        return []

    def nothing(self, objs, request):
        self.users(objs)
        return [], {}, set(), []

    monkeypatch.setattr(TimesAdmin, "users", users)
    monkeypatch.setattr(TimesAdmin, "get_deleted_objects", nothing)
    response = admin_client.post(page("interval", f"{row.pk}/delete/"), {"post": "yes"}, follow=True)
    assert [str(message) for message in response.context["messages"]] == [
        "It was not deleted: a periodic task uses it by now."
    ]
    assert IntervalSchedule.objects.exists()


@pytest.mark.parametrize("kind", TIMES)
def test_who_may_only_view_can_neither_change_nor_delete(person, kind):
    row = {
        "interval": interval,
        "crontab": lambda: crontab("* * * * *"),
        "solar": sun,
        "clocked": lambda: moment(2026, 6, 1),
    }[kind]()
    client = person(f"view_{kind}schedule")
    assert client.get(page(kind, f"{row.pk}/change/")).status_code == 200
    assert client.post(page(kind, f"{row.pk}/change/"), {}).status_code == 403
    assert client.post(page(kind, f"{row.pk}/delete/"), {"post": "yes"}).status_code == 403


def test_a_fixed_time_is_named_in_the_project_s_zone_to_the_second():
    row = ClockedSchedule(clocked_time=datetime(2026, 6, 1, 12, 0, 0, 5, tzinfo=timezone.utc))
    assert str(row) == "2026-06-01 14:00:00+02:00"
    assert str(ClockedSchedule(clocked_time="soon")) == "soon"

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext

from djcelery import forms, utils
from djcelery.forms import (
    ClockedScheduleForm,
    CrontabScheduleForm,
    IntervalScheduleForm,
    LaxChoiceField,
    PeriodicTaskForm,
    PoolSizeForm,
    QueueForm,
    RateLimitForm,
    SolarScheduleForm,
    TaskChoiceField,
    TaskSelectWidget,
    TimeLimitForm,
    misfit,
    registered_task_choices,
    remember_told,
    worker_task_names,
)
from djcelery.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
    TaskHistory,
    TaskState,
)

pytestmark = pytest.mark.django_db


def add_task(app, name):
    def noop():
        pass

    # Shared ones would be in the apps of all other tests too.
    app.task(name=name, shared=False)(noop)


@pytest.fixture
def app(celery_app, monkeypatch):
    """The app with two tasks, whose loader imports nothing else."""
    for name in ("shop.b", "shop.a"):
        add_task(celery_app, name)
    monkeypatch.setattr(celery_app.loader, "import_default_modules", lambda: [])
    return celery_app


@pytest.fixture
def interval():
    return IntervalSchedule.objects.create(every=5, period="minutes")


@pytest.fixture(autouse=True)
def forget():
    cache.clear()
    yield
    cache.clear()


def form(interval=None, **data):
    fields = {"name": "n", "task": "shop.a", "args": "[]", "kwargs": "{}", "enabled": "on"}
    return PeriodicTaskForm({**fields, "interval": interval.pk if interval else "", **data})


def test_the_choices_are_the_project_s_tasks_sorted_after_an_empty_one(app):
    choices = registered_task_choices()
    assert choices[0] == ("", "")
    assert choices[1:] == sorted(choices[1:])
    assert {("shop.a", "shop.a"), ("shop.b", "shop.b")} <= set(choices)


def test_celery_s_own_tasks_are_no_choice(app):
    assert "celery.backend_cleanup" in app.tasks
    assert not [name for name, _ in registered_task_choices() if name.startswith("celery.")]


def test_task_modules_are_imported_before_the_choices_are_listed(celery_app, monkeypatch):
    def import_modules():
        add_task(celery_app, "late.one")

    monkeypatch.setattr(celery_app.loader, "import_default_modules", import_modules)
    assert ("late.one", "late.one") in registered_task_choices()


def test_a_task_module_that_cannot_be_imported_is_logged_and_the_form_still_opens(app, monkeypatch, caplog):
    def broken():
        raise SyntaxError("boom")

    monkeypatch.setattr(app.loader, "import_default_modules", broken)
    assert ("shop.a", "shop.a") in registered_task_choices()
    assert "can't be imported" in caplog.text


def test_the_choices_are_looked_up_when_the_widget_is_shown_and_not_before(app, monkeypatch):
    shown = PeriodicTaskForm()
    add_task(app, "shop.c")
    assert 'value="shop.c"' in str(shown["regtask"])


def test_making_a_form_imports_no_task_module(app, monkeypatch):
    def unwanted():
        pytest.fail("the task modules were imported")

    monkeypatch.setattr(app.loader, "import_default_modules", unwanted)
    PeriodicTaskForm()


def test_the_choices_of_the_widget_cannot_be_assigned(app):
    widget = TaskSelectWidget(choices=[("x", "x")])
    widget.choices = [("y", "y")]
    assert ("y", "y") not in widget.choices
    assert ("shop.a", "shop.a") in widget.choices


def test_a_lax_choice_field_takes_what_is_no_choice():
    assert LaxChoiceField(choices=[("a", "a")]).clean("b") == "b"
    assert TaskChoiceField().clean("unknown.task") == "unknown.task"


# -- what workers know -----------------------------------------------------------------------------

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def ran(name, state="SUCCESS", period="total", start=EPOCH):
    TaskHistory.objects.create(period=period, start=utils.correct_awareness(start), name=name, state=state, count=1)


def seen(name, number=0):
    TaskState.objects.create(task_id=f"id-{number}", name=name, state="SUCCESS", tstamp=utils.now())


def test_tasks_of_workers_are_choices_too_and_what_no_worker_was_seen_with_is_marked(app):
    ran("shop.a")
    ran("shop.a", "FAILURE")
    ran("far.one")
    seen("far.two")
    remember_told(["far.three"])
    choices = dict(registered_task_choices())
    assert {"far.one", "far.two", "far.three"} <= set(choices)
    assert choices["shop.a"] == "shop.a"
    assert choices["shop.b"] == "shop.b (no worker was seen with it)"


def test_if_nothing_is_known_of_workers_nothing_is_marked(app):
    assert dict(registered_task_choices())["shop.a"] == "shop.a"


def test_celery_s_own_tasks_and_tasks_without_a_name_are_no_choice_wherever_they_ran(app):
    ran("celery.chord")
    ran("")
    seen(None)
    assert not [name for name, _ in registered_task_choices()[1:] if not name or name.startswith("celery.")]


def test_what_workers_know_takes_two_queries_of_a_bounded_number_of_rows(app, monkeypatch):
    monkeypatch.setattr(forms, "_HISTORY_ROWS", 2)
    monkeypatch.setattr(forms, "_TASK_ROWS", 2)
    for number in range(4):
        ran(f"history.{number}")
        seen(f"task.{number}", number)
    with CaptureQueriesContext(connection) as captured:
        names = worker_task_names()
    assert len(captured) == 2
    assert len(names) == 4


def test_the_history_of_minutes_is_not_read_for_names(app):
    ran("shop.a", period="minute", start=NOON)
    assert worker_task_names() == set()


def test_without_use_tz_the_names_are_found_all_the_same(app, settings):
    settings.USE_TZ = False
    ran("shop.a")
    assert worker_task_names() == {"shop.a"}


@pytest.mark.parametrize(
    ("args", "kwargs", "fits"),
    [
        ([1], {}, True),
        ([1, 2], {}, True),
        ([], {"x": 1, "y": 2}, True),
        ([], {}, False),
        ([1, 2, 3], {}, False),
        ([1], {"x": 1}, False),
        ([1], {"z": 1}, False),
    ],
)
def test_arguments_that_a_task_does_not_take_are_noticed(app, args, kwargs, fits):
    @app.task(name="shop.add", shared=False)
    def add(x, y=0):
        pass

    @app.task(name="shop.bound", bind=True, shared=False)
    def bound(self, x, y=0):
        pass

    for name in ("shop.add", "shop.bound"):
        assert (misfit(name, args, kwargs) == "") == fits
    assert misfit("elsewhere.x", args, kwargs) == ""


def test_a_task_that_takes_anything_by_its_own_wish_is_not_checked(app):
    @app.task(name="shop.any", typing=False, shared=False)
    def anything(x):
        pass

    assert misfit("shop.any", [], {}) == ""


def test_what_may_be_wrong_is_a_warning_and_no_error(app, interval):
    filled = form(interval, args="[1]")
    assert filled.is_valid(), filled.errors
    assert len(filled.warnings) == 1
    assert "The arguments don't fit the task shop.a" in filled.warnings[0]
    assert form(interval).warnings == ()


def test_a_task_that_no_worker_was_seen_with_is_a_warning(app, interval):
    ran("shop.a")
    filled = form(interval, task="", regtask="shop.b")
    assert filled.is_valid(), filled.errors
    assert [str(text) for text in filled.warnings] == ["No worker was seen with a task shop.b so far."]
    known = form(interval)
    assert known.is_valid()
    assert known.warnings == ()


def test_an_edit_of_something_else_is_not_warned_of_again(app, interval):
    row = form(interval, args="[1]").save()
    data = {"name": "n", "task": "shop.a", "args": "[1]", "kwargs": "{}", "enabled": "on", "interval": interval.pk}
    filled = PeriodicTaskForm({**data, "description": "why"}, instance=row)
    assert filled.is_valid(), filled.errors
    assert filled.warnings == ()


def test_the_chosen_task_overrides_the_written_one(app, interval):
    filled = form(interval, regtask="shop.b")
    assert filled.is_valid(), filled.errors
    assert filled.save().task == "shop.b"


def test_an_unknown_task_is_accepted_chosen_or_written(app, interval):
    assert form(interval, regtask="elsewhere.x", task="").is_valid()
    assert form(interval, task="elsewhere.y").is_valid()


def test_a_task_must_be_named(app, interval):
    empty = form(interval, task="")
    assert empty.errors["task"] == ["Need name of task"]
    assert empty.non_field_errors() == ["Need name of task"]


def test_a_name_that_is_too_long_is_an_error_of_its_field(app, interval):
    assert "200" in form(interval, task="x" * 201).errors["task"][0]
    assert "200" in form(interval, task="", regtask="x" * 201).errors["task"][0]


@pytest.mark.parametrize(("field", "empty"), [("args", "[]"), ("kwargs", "{}")])
def test_empty_arguments_mean_none(app, interval, field, empty):
    filled = form(interval, **{field: "  "})
    assert filled.is_valid(), filled.errors
    assert getattr(filled.save(), field) == empty


@pytest.mark.parametrize("field", ["args", "kwargs"])
def test_text_that_is_no_json_is_refused_with_line_and_column(app, interval, field):
    error = form(interval, **{field: "[1,\n  two]"}).errors[field][0]
    assert error.startswith("Unable to parse JSON: ")
    assert "line 2 column 3" in error


@pytest.mark.parametrize(
    ("field", "text", "error"),
    [
        ("args", '{"a": 1}', "array"),
        ("args", '"text"', "array"),
        ("kwargs", "[1]", "object"),
        ("kwargs", "null", "object"),
        ("args", "[NaN]", "NaN"),
        ("args", "[" * 100_000, "nested"),
    ],
)
def test_json_that_is_no_argument_list_is_refused(app, interval, field, text, error):
    assert error in form(interval, **{field: text}).errors[field][0]


def test_a_schedule_must_be_set_and_only_one(app, interval):
    crontab = CrontabSchedule.objects.create()
    assert form().errors["interval"] == ["One of interval or crontab must be set."]
    both = form(interval, crontab=crontab.pk)
    assert both.errors["crontab"] == ["Only one of interval or crontab must be set"]
    assert form(crontab=crontab.pk).is_valid()


def test_rows_that_legacy_let_through_are_refused_where_they_are_chosen(app):
    never = IntervalSchedule.objects.create(every=0, period="minutes")
    endless = IntervalSchedule.objects.create(every=2_000_000_000, period="days")
    broken = CrontabSchedule.objects.create(minute="soon")
    assert "at least 1" in form(never).errors["interval"][0]
    assert "no period" in form(endless).errors["interval"][0]
    assert "soon" in form(crontab=broken.pk).errors["crontab"][0]


def test_a_schedule_that_is_gone_is_an_error_of_its_field(app, interval):
    filled = form(interval)
    IntervalSchedule.objects.all().delete()
    assert "interval" in filled.errors


def test_the_description_can_be_edited(app, interval):
    filled = form(interval, description="why")
    assert filled.is_valid(), filled.errors
    filled.save()
    assert PeriodicTask.objects.get().description == "why"


NOON = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("data", "field", "error"),
    [
        ({"headers": "[1]"}, "headers", "Must be a JSON object"),
        ({"priority": 256}, "priority", "Must be between 0 and 255."),
        ({"expire_seconds": 0}, "expire_seconds", "Must be at least 1."),
        ({"grace_seconds": -1}, "grace_seconds", "Must be at least 0."),
        ({"jitter_seconds": -1}, "jitter_seconds", "Must be at least 0."),
        ({"no_overlap": "on", "overlap_timeout": 0}, "overlap_timeout", "Must be at least 1."),
        ({"overlap_timeout": 5}, "__all__", "needs “no overlap”"),
        ({"one_off": "on", "missed_runs": "all"}, "__all__", "A one-off task runs once"),
        ({"expires": NOON, "expire_seconds": 5}, "__all__", "Only one of expires and expire seconds"),
        ({"expires": NOON, "start_time": NOON}, "__all__", "expires before its start time"),
        ({"missed_runs": "some"}, "missed_runs", "Select a valid choice"),
    ],
)
def test_options_that_cannot_be_kept_are_refused_in_words(app, interval, data, field, error):
    assert error in form(interval, **data).errors[field][0]


def test_a_fixed_time_that_can_never_come_is_refused(app):
    moment = ClockedSchedule.objects.create(clocked_time=NOON)
    assert "before the start time" in form(clocked=moment.pk, start_time=NOON + timedelta(1)).errors["__all__"][0]
    assert "before its clocked time" in form(clocked=moment.pk, expires=NOON).errors["__all__"][0]


def test_two_of_the_new_schedules_are_refused_by_name(app):
    moment = ClockedSchedule.objects.create(clocked_time=NOON)
    place = SolarSchedule.objects.create(event="sunset", latitude=51, longitude=4)
    assert form(clocked=moment.pk, solar=place.pk).non_field_errors() == [
        "Only one schedule must be set, not event of the sun, fixed time."
    ]
    assert form(solar=place.pk).is_valid()


def test_flags_that_legacy_rows_leave_open_mean_no(app, interval):
    row = form(interval).save()
    assert (row.one_off, row.no_overlap) == (False, False)


@pytest.mark.parametrize(("minute", "day", "month"), [("0", "31", "2"), ("0", "30", "2"), ("0", "31", "4,6")])
def test_a_crontab_that_never_fires_is_refused(minute, day, month):
    data = {"minute": minute, "hour": "0", "day_of_week": "*", "day_of_month": day, "month_of_year": month}
    assert CrontabScheduleForm(data).non_field_errors()


def test_a_zone_that_does_not_exist_is_refused_and_an_empty_one_means_the_app_s():
    star = dict.fromkeys(("minute", "hour", "day_of_week", "day_of_month", "month_of_year"), "*")
    assert "Mars/Base" in CrontabScheduleForm({**star, "timezone": "Mars/Base"}).errors["timezone"][0]
    assert CrontabScheduleForm({**star, "timezone": ""}).save().timezone is None


@pytest.mark.parametrize(("field", "degrees"), [("latitude", 90.1), ("longitude", -181)])
def test_a_place_that_is_none_is_refused(field, degrees):
    place = {"event": "sunset", "latitude": 51, "longitude": 4}
    assert SolarScheduleForm(place).is_valid()
    assert "degrees" in SolarScheduleForm({**place, field: degrees}).errors[field][0]


def test_a_fixed_time_must_be_given():
    assert "clocked_time" in ClockedScheduleForm({}).errors
    assert ClockedScheduleForm({"clocked_time": NOON}).save().clocked_time == NOON


def test_a_period_below_a_second_is_refused():
    assert "shorter than a second" in IntervalScheduleForm({"every": 5, "period": "microseconds"}).errors["every"][0]


@pytest.mark.parametrize("every", [0, -1])
def test_an_interval_is_at_least_one_unit_long(every):
    assert "at least 1" in IntervalScheduleForm({"every": every, "period": "hours"}).errors["every"][0]


def test_an_interval_that_python_cannot_count_is_refused():
    assert "no period" in IntervalScheduleForm({"every": 2_000_000_000, "period": "days"}).errors["every"][0]


def test_a_good_interval_is_saved():
    assert IntervalScheduleForm({"every": 1, "period": "days"}).save().every == 1


@pytest.mark.parametrize("minute", ["61", "soon", "*/", "1,,2", "*/0", "5-"])
def test_a_crontab_that_celery_cannot_read_is_refused(minute):
    star = dict.fromkeys(("hour", "day_of_week", "day_of_month", "month_of_year"), "*")
    assert "Not a crontab" in CrontabScheduleForm({"minute": minute, **star}).non_field_errors()[0]


def test_a_good_crontab_is_saved():
    star = dict.fromkeys(("hour", "day_of_month", "month_of_year"), "*")
    saved = CrontabScheduleForm({"minute": "*/15", "day_of_week": "mon-fri", **star}).save()
    assert saved.schedule.minute == {0, 15, 30, 45}


@pytest.mark.parametrize(("text", "value"), [("10/s", "10/s"), (" 100 / m ", "100/m"), ("0", "0"), ("2.5/h", "2.5/h")])
def test_a_rate_is_written_as_celery_reads_it(text, value):
    filled = RateLimitForm({"rate_limit": text})
    assert filled.is_valid(), filled.errors
    assert filled.cleaned_data["rate_limit"] == value


@pytest.mark.parametrize("text", ["", "lots", "10/week", "-1/s", "nan", "inf/s"])
def test_what_is_no_rate_is_refused(text):
    assert "rate_limit" in RateLimitForm({"rate_limit": text}).errors


# -- commands to workers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "data", "arguments", "note"),
    [
        (PoolSizeForm, {"n": "100"}, {"n": 100}, "n 100"),
        (QueueForm, {"queue": " correo-ñ "}, {"queue": "correo-ñ"}, "queue correo-ñ"),
        (
            TimeLimitForm,
            {"task_name": "a", "soft": "0.5"},
            {"task_name": "a", "soft": 0.5, "hard": None},
            "task_name a, soft 0.5, hard none",
        ),
    ],
)
def test_the_arguments_of_a_command_are_cleaned_and_can_be_logged(kind, data, arguments, note):
    filled = kind(data)
    assert filled.is_valid(), filled.errors
    assert filled.arguments() == arguments
    assert filled.note() == note

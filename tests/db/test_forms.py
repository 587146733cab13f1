from __future__ import annotations

import pytest

from djcelery.forms import (
    CrontabScheduleForm,
    IntervalScheduleForm,
    LaxChoiceField,
    PeriodicTaskForm,
    RateLimitForm,
    TaskChoiceField,
    TaskSelectWidget,
    registered_task_choices,
)
from djcelery.models import CrontabSchedule, IntervalSchedule, PeriodicTask

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

"""The forms of the schedule: what a person may enter, and the words that say what is wrong with it.

Called by ``djcelery.admin`` and by project code. The rules that a row must keep are the model's;
these forms put them into words beside the field.
"""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import Any

from celery.utils.time import rate
from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from djcelery.app import project_app
from djcelery.models import CrontabSchedule, IntervalSchedule, PeriodicTask

logger = logging.getLogger(__name__)


def registered_task_choices() -> list[tuple[str, str]]:
    """Return the names of the project's tasks as choices, sorted, after an empty one.

    Celery's own tasks are left out. Imports the task modules, as a worker would; if one of them can't be
    imported, that is logged and the tasks known so far are returned.
    """
    app = project_app()
    try:
        app.loader.import_default_modules()
    except Exception:  # the project's own modules may raise anything; the form must still open
        logger.exception("A task module can't be imported; the list of registered tasks is incomplete.")
    names = sorted(name for name in app.tasks if not name.startswith("celery."))
    return [("", ""), *((name, name) for name in names)]


class TaskSelectWidget(forms.Select):
    """A select of the registered tasks, looked up each time that it is shown."""

    def __init__(self, attrs: dict[str, Any] | None = None, choices: Any = ()) -> None:
        super().__init__(attrs)

    @property
    def choices(self) -> list[tuple[str, str]]:
        """The registered tasks. Can't be assigned: what Django or a caller sets is dropped."""
        return registered_task_choices()

    @choices.setter
    def choices(self, value: Any) -> None:
        pass

    def __deepcopy__(self, memo: dict[int, Any]) -> TaskSelectWidget:
        # Django's copies the choices, which would import all task modules for every form.
        copied = type(self)(self.attrs.copy())
        memo[id(self)] = copied
        return copied


class LaxChoiceField(forms.ChoiceField):
    """A choice field that takes any value: the worker may know tasks that this process doesn't."""

    def valid_value(self, value: Any) -> bool:
        """Return True."""
        return True


class TaskChoiceField(LaxChoiceField):
    """A choice of the registered tasks."""

    widget = TaskSelectWidget


def _parse_json(text: str, kind: type, example: str) -> str:
    """Return *text*, or *example* if it is empty, once it is known to be JSON of the type *kind*."""
    text = text.strip() or example
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as exc:
        raise ValidationError(_("Unable to parse JSON: %(reason)s"), params={"reason": exc}) from exc
    except RecursionError as exc:
        raise ValidationError(_("Unable to parse JSON: it is nested too deep")) from exc
    if not isinstance(value, kind):
        message = (
            _('Must be a JSON array, such as [1, "two"].')
            if kind is list
            else _('Must be a JSON object, such as {"name": "value"}.')
        )
        raise ValidationError(message)
    return text


def _refuse_constant(name: str) -> None:
    # Python reads NaN and Infinity; other JSON parsers, among them those of databases, do not.
    raise ValueError(f"{name} is not JSON")


# Three lines each, so that the schedule stays in view.
_TEXTS = ("args", "kwargs", "description")


class PeriodicTaskForm(forms.ModelForm):
    """Edits a periodic task; its name can be chosen (``regtask``) or written (``task``)."""

    regtask = TaskChoiceField(label=_("Task (registered)"), required=False)
    task = forms.CharField(label=_("Task (custom)"), required=False, max_length=200)

    class Meta:
        model = PeriodicTask
        exclude = ()  # noqa: DJ006 - the promise is "all fields", new ones included
        widgets = {name: forms.Textarea({"rows": 3, "class": "vLargeTextField"}) for name in _TEXTS}

    def clean(self) -> dict[str, Any]:
        """Take the chosen task's name for the written one; one of them must be given."""
        data = super().clean() or self.cleaned_data
        if data.get("regtask"):
            data["task"] = data["regtask"]
        if not data.get("task") and "task" not in self.errors:
            self.add_error("task", _("Need name of task"))
            self.add_error(None, _("Need name of task"))
        return data

    def clean_args(self) -> str:
        """Return the arguments, a JSON array; empty means none."""
        return _parse_json(self.cleaned_data["args"], list, "[]")

    def clean_kwargs(self) -> str:
        """Return the keyword arguments, a JSON object; empty means none."""
        return _parse_json(self.cleaned_data["kwargs"], dict, "{}")

    def clean_interval(self) -> IntervalSchedule | None:
        """Refuse a row that django-celery let through and that can't be run."""
        interval = self.cleaned_data["interval"]
        if interval:
            _check_interval(interval.every, interval.period)
        return interval

    def clean_crontab(self) -> CrontabSchedule | None:
        """Refuse a row that django-celery let through and that Celery can't read."""
        crontab = self.cleaned_data["crontab"]
        if crontab:
            crontab.clean()
        return crontab


def _check_interval(every: int, period: str) -> None:
    if every < 1:
        raise ValidationError(_("The interval must be at least 1; %(every)s can't be run."), params={"every": every})
    try:
        timedelta(**{period: every})
    except (OverflowError, TypeError) as exc:
        raise ValidationError(
            _("%(every)s %(period)s is no period that can be run."), params={"every": every, "period": period}
        ) from exc


class IntervalScheduleForm(forms.ModelForm):
    """Edits an interval, which must be at least one unit long."""

    class Meta:
        model = IntervalSchedule
        fields = ("every", "period")

    def clean(self) -> dict[str, Any]:
        """Refuse what can't be run."""
        data = super().clean() or self.cleaned_data
        if data.get("every") is not None and data.get("period"):
            try:
                _check_interval(data["every"], data["period"])
            except ValidationError as exc:
                self.add_error("every", exc)
        return data


class CrontabScheduleForm(forms.ModelForm):
    """Edits a crontab; the model says what Celery can't read."""

    class Meta:
        model = CrontabSchedule
        fields = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")


class RateLimitForm(forms.Form):
    """Asks for a rate, in Celery's notation."""

    rate_limit = forms.CharField(
        label=_("Rate limit"),
        max_length=32,
        help_text=_("Such as 10/s, 100/m or 1000/h, for each worker; 0 for no limit."),
    )

    def clean_rate_limit(self) -> str:
        """Return the rate as text; Celery's own parser is the judge."""
        text = self.cleaned_data["rate_limit"].replace(" ", "")
        try:
            per_second = rate(text)
        except (ValueError, KeyError) as exc:
            raise ValidationError(
                _("“%(text)s” is not a rate such as 10/s, 100/m or 1000/h."), params={"text": text}
            ) from exc
        if not 0 <= per_second < float("inf"):
            raise ValidationError(_("A rate can't be negative or infinite."))
        return text

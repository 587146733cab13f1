"""The forms of the schedule and of commands to workers: what a person may enter, and what is wrong with it.

Called by ``djcelery.admin`` and by project code. The rules that a row must keep are the model's;
these forms put them into words beside the field.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from celery.utils.time import rate
from django import forms
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.core.validators import ProhibitNullCharactersValidator
from django.utils.translation import gettext_lazy as _

from djcelery import db, utils
from djcelery.app import project_app
from djcelery.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
    TaskHistory,
    TaskState,
    rules,
)

logger = logging.getLogger(__name__)

# Where the sums since the beginning stand in the history.
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
#: Rows that are looked at for names of tasks.
_HISTORY_ROWS, _TASK_ROWS = 5_000, 1_000
_TOLD_KEY = "djcelery.told_task_names"
#: Names of tasks that workers told are believed for so many seconds.
TOLD_FOR_S = 3600
_MAX_TOLD, _MAX_CHARACTERS = 5_000, 255


def project_tasks() -> Any:
    """Return the tasks of the project by name, once its task modules are imported, as a worker would.

    If one of them can't be imported, that is logged and the tasks known so far are returned.
    """
    app = project_app()
    try:
        app.loader.import_default_modules()
    except Exception:  # the project's own modules may raise anything; the form must still open
        logger.exception("A task module can't be imported; the list of registered tasks is incomplete.")
    return app.tasks


def worker_task_names() -> set[str]:
    """Return the names of tasks that workers have run, or told that they know. Waits for no broker.

    Database: 2 queries, served by an index each; of the history, and of the latest rows of tasks.
    """
    totals = TaskHistory.objects.filter(period=TaskHistory.TOTAL, start=utils.correct_awareness(_EPOCH))
    seen = set(totals.order_by().values_list("name", flat=True)[:_HISTORY_ROWS])
    seen.update(TaskState.objects.order_by("-tstamp").values_list("name", flat=True)[:_TASK_ROWS])
    seen.update(_told())
    return {name for name in seen if name}


def remember_told(names: Iterable[str]) -> None:
    """Keep for an hour, in the project's cache, what tasks workers told they know."""
    # As the database would keep them: a worker may tell any text, and no page can hold halves of characters.
    texts = (db.storable(name)[:_MAX_CHARACTERS] for name in names if isinstance(name, str))
    told = sorted({*_told(), *texts})[:_MAX_TOLD]
    try:
        cache.set(_TOLD_KEY, told, TOLD_FOR_S)
    except Exception:  # a cache raises what its client raises; without it the names are just not remembered
        logger.warning("The names of tasks that workers told can't be kept in the cache.", exc_info=True)


def _told() -> list[str]:
    try:
        told = cache.get(_TOLD_KEY)
    except Exception:  # as above
        logger.warning("The names of tasks that workers told can't be read from the cache.", exc_info=True)
        told = None
    return told if isinstance(told, list) else []


def registered_task_choices() -> list[tuple[str, str]]:
    """Return the names of tasks as choices, sorted, after an empty one: the project's, and those that workers know.

    Celery's own tasks are left out. If anything is known of workers, a task that none of them is known to have is
    marked.

    Database: see ``worker_task_names()``.
    """
    at_workers = worker_task_names()
    names = sorted(name for name in {*project_tasks(), *at_workers} if not name.startswith("celery."))
    unseen = _("%(name)s (no worker was seen with it)")
    return [
        ("", ""),
        *((name, name if name in at_workers or not at_workers else unseen % {"name": name}) for name in names),
    ]


def misfit(name: str, args: Any, kwargs: Any) -> str:
    """Return why the task *name* can't be called with these arguments; ``""`` if it can, or isn't known here.

    The judge is what Celery itself asks when such a task is sent.
    """
    task = project_tasks().get(name)
    check = getattr(task, "__header__", None) if getattr(task, "typing", False) else None
    if check is None:
        return ""
    try:
        check(*args, **kwargs)
    except TypeError as exc:
        return str(exc)
    return ""


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

    def use_required_attribute(self, initial: Any) -> bool:
        """Return True unless hidden. Django looks at the first choice for that, which is known: it is empty."""
        return not self.is_hidden

    def __deepcopy__(self, memo: dict[int, Any]) -> TaskSelectWidget:
        # Django's copies the choices, which would import all task modules for every form.
        copied = type(self)(self.attrs.copy())
        memo[id(self)] = copied
        return copied


class LaxChoiceField(forms.ChoiceField):
    """A choice field that takes any value: the worker may know tasks that this process doesn't."""

    # Django's has none, since nothing but its choices passes.
    default_validators = (ProhibitNullCharactersValidator(),)

    def valid_value(self, value: Any) -> bool:
        """Return True."""
        return True


class TaskChoiceField(LaxChoiceField):
    """A choice of the registered tasks."""

    widget = TaskSelectWidget


def _doubts(name: str, args: str, kwargs: str) -> Iterable[Any]:
    """Yield what may be wrong with a task that is to be sent: workers may know better than this process."""
    why = misfit(name, json.loads(args), json.loads(kwargs))
    if why:
        text = _("The arguments don't fit the task %(name)s as this process knows it: %(reason)s")
        yield text % {"name": name, "reason": db.storable(why)}
    known = worker_task_names()
    if name not in known and not name.startswith("celery."):
        if known:
            yield _("No worker was seen with a task %(name)s so far.") % {"name": name}
        elif name not in project_tasks():
            yield _("This process knows no task %(name)s.") % {"name": name}


# Three lines each, so that the schedule stays in view.
_TEXTS = ("args", "kwargs", "headers", "description")
# NULL in rows of django-celery, which means no.
_FLAGS = ("one_off", "no_overlap")


class PeriodicTaskForm(forms.ModelForm):
    """Edits a periodic task; its name can be chosen (``regtask``) or written (``task``)."""

    regtask = TaskChoiceField(label=_("Task (registered)"), required=False)
    task = forms.CharField(label=_("Task (custom)"), required=False, max_length=200)

    class Meta:
        model = PeriodicTask
        exclude = ()  # noqa: DJ006 - the promise is "all fields", new ones included
        widgets = {name: forms.Textarea({"rows": 3, "class": "vLargeTextField"}) for name in _TEXTS}
        field_classes = dict.fromkeys(_FLAGS, forms.BooleanField)

    #: What may be wrong, in words; filled by ``clean()``.
    warnings: tuple[Any, ...] = ()

    def clean(self) -> dict[str, Any]:
        """Take the chosen task's name for the written one; one of them must be given."""
        data = super().clean() or self.cleaned_data
        if data.get("regtask"):
            data["task"] = data["regtask"]
        if not data.get("task") and "task" not in self.errors:
            self.add_error("task", _("Need name of task"))
            self.add_error(None, _("Need name of task"))
        sent = {"task", "regtask", "args", "kwargs"}
        if not sent & set(self.errors) and sent & set(self.changed_data):
            self.warnings = tuple(_doubts(data["task"], data.get("args", "[]"), data.get("kwargs", "{}")))
        return data

    def clean_args(self) -> str:
        """Return the arguments, a JSON array; empty means none."""
        return rules.parse_json(self.cleaned_data["args"], list, "[]")

    def clean_kwargs(self) -> str:
        """Return the keyword arguments, a JSON object; empty means none."""
        return rules.parse_json(self.cleaned_data["kwargs"], dict, "{}")


class IntervalScheduleForm(forms.ModelForm):
    """Edits an interval; the model says what can't be run."""

    class Meta:
        model = IntervalSchedule
        fields = ("every", "period")


class CrontabScheduleForm(forms.ModelForm):
    """Edits a crontab; the model says what Celery can't read."""

    class Meta:
        model = CrontabSchedule
        fields = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year", "timezone")


class SolarScheduleForm(forms.ModelForm):
    """Edits an event of the sun; the model says what is no place."""

    class Meta:
        model = SolarSchedule
        fields = ("event", "latitude", "longitude")


class ClockedScheduleForm(forms.ModelForm):
    """Edits a fixed time."""

    class Meta:
        model = ClockedSchedule
        fields = ("clocked_time",)


class RateLimitForm(forms.Form):
    """Asks for a rate, in Celery's notation."""

    rate_limit = forms.CharField(
        label=_("Rate limit"),
        max_length=32,
        help_text=_("Such as 10/s, 100/m or 1000/h, for each worker; 0 for no limit."),
    )

    def clean_rate_limit(self) -> str:
        """Return the rate as text; Celery's own parser is the judge."""
        # Without any white space: a line break would go into logs.
        text = "".join(self.cleaned_data["rate_limit"].split())
        try:
            per_second = rate(text)
        except (ValueError, KeyError) as exc:
            raise ValidationError(
                _("“%(text)s” is not a rate such as 10/s, 100/m or 1000/h."), params={"text": text}
            ) from exc
        if not 0 <= per_second < float("inf"):
            raise ValidationError(_("A rate can't be negative or infinite."))
        return text


def _one_line(text: str) -> str:
    """Return *text* without spaces around it.

    Raises:
        ValidationError: There are control characters in it.
    """
    text = text.strip()
    if not text.isprintable():
        raise ValidationError(_("Only characters that can be printed are allowed."))
    return text


class CommandForm(forms.Form):
    """Asks for the arguments of a command to workers."""

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the method of ``app.control``."""
        return dict(self.cleaned_data)

    def note(self) -> str:
        """Return the arguments as the log says them."""
        return ", ".join(f"{name} {'none' if value is None else value}" for name, value in self.arguments().items())


class PoolSizeForm(CommandForm):
    """Asks by how many processes or threads a pool is to change."""

    n = forms.IntegerField(
        label=_("By how many"),
        min_value=1,
        max_value=100,
        initial=1,
        help_text=_("Processes or threads of each worker, 1 to 100."),
    )


class QueueForm(CommandForm):
    """Asks for the name of a queue."""

    queue = forms.CharField(
        label=_("Queue"),
        max_length=200,
        help_text=_(
            "A queue that the broker doesn't have yet is made, with an exchange and a routing key of its name."
        ),
    )

    def clean_queue(self) -> str:
        """Return the name."""
        return _one_line(self.cleaned_data["queue"])


class LeaveQueueForm(QueueForm):
    """Asks for the name of a queue that is there."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["queue"].help_text = _("Its messages stay where they are, for other workers.")


class TimeLimitForm(CommandForm):
    """Asks for the name of a task, and how many seconds it may run."""

    #: Seconds of a month: what runs longer had better have no limit.
    MOST_S = 31 * 24 * 3600

    task_name = forms.CharField(label=_("Task name"), max_length=200)
    soft = forms.FloatField(
        label=_("Soft limit"),
        required=False,
        min_value=0.1,
        max_value=MOST_S,
        help_text=_("Seconds after which the task gets the exception SoftTimeLimitExceeded; empty for no limit."),
    )
    hard = forms.FloatField(
        label=_("Hard limit"),
        required=False,
        min_value=0.1,
        max_value=MOST_S,
        help_text=_("Seconds after which the process of the task is killed; empty for no limit."),
    )

    def clean_task_name(self) -> str:
        """Return the name."""
        return _one_line(self.cleaned_data["task_name"])

    def clean(self) -> dict[str, Any]:
        """Refuse a soft limit that the hard one would never let come."""
        data = super().clean() or self.cleaned_data
        soft, hard = data.get("soft"), data.get("hard")
        if soft is not None and hard is not None and soft >= hard:
            self.add_error("soft", _("The soft limit must be shorter than the hard one."))
        return data

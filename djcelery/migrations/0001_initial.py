"""The eight tables of django-celery 3.x; the ones that exist already are left as they are.

Name, order and columns are those of the migration that django-celery recorded; never change them.
"""

import django.db.models.deletion
from django.db import migrations, models

import djcelery.picklefield
from djcelery.migrations import _operations

STATES = ["FAILURE", "PENDING", "RECEIVED", "RETRY", "REVOKED", "STARTED", "SUCCESS"]
STATE_CHOICES = [(state, state) for state in STATES]
PERIOD_CHOICES = [
    ("days", "Days"),
    ("hours", "Hours"),
    ("minutes", "Minutes"),
    ("seconds", "Seconds"),
    ("microseconds", "Microseconds"),
]


def key():
    return ("id", models.AutoField(verbose_name="ID", serialize=False, auto_created=True, primary_key=True))


class Migration(migrations.Migration):
    initial = True
    dependencies = []

    operations = [
        _operations.CreateMissingModel(
            name="CrontabSchedule",
            fields=[
                key(),
                ("minute", models.CharField(default="*", max_length=64, verbose_name="minute")),
                ("hour", models.CharField(default="*", max_length=64, verbose_name="hour")),
                ("day_of_week", models.CharField(default="*", max_length=64, verbose_name="day of week")),
                ("day_of_month", models.CharField(default="*", max_length=64, verbose_name="day of month")),
                ("month_of_year", models.CharField(default="*", max_length=64, verbose_name="month of year")),
            ],
            options={
                "verbose_name": "crontab",
                "verbose_name_plural": "crontabs",
                "ordering": ("month_of_year", "day_of_month", "day_of_week", "hour", "minute"),
            },
        ),
        _operations.CreateMissingModel(
            name="IntervalSchedule",
            fields=[
                key(),
                ("every", models.IntegerField(verbose_name="every")),
                ("period", models.CharField(choices=PERIOD_CHOICES, max_length=24, verbose_name="period")),
            ],
            options={
                "verbose_name": "interval",
                "verbose_name_plural": "intervals",
                "ordering": ("period", "every"),
            },
        ),
        _operations.CreateMissingModel(
            name="PeriodicTask",
            fields=[
                key(),
                (
                    "name",
                    models.CharField(help_text="Useful description", unique=True, max_length=200, verbose_name="name"),
                ),
                ("task", models.CharField(max_length=200, verbose_name="task name")),
                (
                    "args",
                    models.TextField(
                        default="[]",
                        help_text="JSON encoded positional arguments",
                        verbose_name="Arguments",
                        blank=True,
                    ),
                ),
                (
                    "kwargs",
                    models.TextField(
                        default="{}",
                        help_text="JSON encoded keyword arguments",
                        verbose_name="Keyword arguments",
                        blank=True,
                    ),
                ),
                (
                    "queue",
                    models.CharField(
                        default=None,
                        max_length=200,
                        blank=True,
                        help_text="Queue defined in CELERY_QUEUES",
                        null=True,
                        verbose_name="queue",
                    ),
                ),
                (
                    "exchange",
                    models.CharField(default=None, max_length=200, null=True, verbose_name="exchange", blank=True),
                ),
                (
                    "routing_key",
                    models.CharField(default=None, max_length=200, null=True, verbose_name="routing key", blank=True),
                ),
                ("expires", models.DateTimeField(null=True, verbose_name="expires", blank=True)),
                ("enabled", models.BooleanField(default=True, verbose_name="enabled")),
                ("last_run_at", models.DateTimeField(null=True, editable=False, blank=True)),
                ("total_run_count", models.PositiveIntegerField(default=0, editable=False)),
                ("date_changed", models.DateTimeField(auto_now=True)),
                ("description", models.TextField(verbose_name="description", blank=True)),
                (
                    "crontab",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        blank=True,
                        to="djcelery.crontabschedule",
                        help_text="Use one of interval/crontab",
                        null=True,
                        verbose_name="crontab",
                    ),
                ),
                (
                    "interval",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        verbose_name="interval",
                        blank=True,
                        to="djcelery.intervalschedule",
                        null=True,
                    ),
                ),
            ],
            options={"verbose_name": "periodic task", "verbose_name_plural": "periodic tasks"},
        ),
        _operations.CreateMissingModel(
            name="PeriodicTasks",
            fields=[
                ("ident", models.SmallIntegerField(default=1, unique=True, serialize=False, primary_key=True)),
                ("last_update", models.DateTimeField()),
            ],
            options={
                "verbose_name": "change of the schedule",
                "verbose_name_plural": "changes of the schedule",
            },
        ),
        _operations.CreateMissingModel(
            name="TaskMeta",
            fields=[
                key(),
                ("task_id", models.CharField(unique=True, max_length=255, verbose_name="task id")),
                (
                    "status",
                    models.CharField(default="PENDING", max_length=50, verbose_name="state", choices=STATE_CHOICES),
                ),
                ("result", djcelery.picklefield.PickledObjectField(default=None, null=True, editable=False)),
                ("date_done", models.DateTimeField(auto_now=True, verbose_name="done at")),
                ("traceback", models.TextField(null=True, verbose_name="traceback", blank=True)),
                ("hidden", models.BooleanField(default=False, db_index=True, editable=False)),
                ("meta", djcelery.picklefield.PickledObjectField(default=None, null=True, editable=False)),
            ],
            options={
                "verbose_name": "task state",
                "verbose_name_plural": "task states",
                "db_table": "celery_taskmeta",
            },
        ),
        _operations.CreateMissingModel(
            name="TaskSetMeta",
            fields=[
                key(),
                ("taskset_id", models.CharField(unique=True, max_length=255, verbose_name="group id")),
                ("result", djcelery.picklefield.PickledObjectField(editable=False)),
                ("date_done", models.DateTimeField(auto_now=True, verbose_name="done at")),
                ("hidden", models.BooleanField(default=False, db_index=True, editable=False)),
            ],
            options={
                "verbose_name": "saved group result",
                "verbose_name_plural": "saved group results",
                "db_table": "celery_tasksetmeta",
            },
        ),
        _operations.CreateMissingModel(
            name="TaskState",
            fields=[
                key(),
                (
                    "state",
                    models.CharField(max_length=64, verbose_name="state", db_index=True, choices=STATE_CHOICES),
                ),
                ("task_id", models.CharField(unique=True, max_length=36, verbose_name="UUID")),
                ("name", models.CharField(max_length=200, null=True, verbose_name="name", db_index=True)),
                ("tstamp", models.DateTimeField(verbose_name="event received at", db_index=True)),
                ("args", models.TextField(null=True, verbose_name="Arguments")),
                ("kwargs", models.TextField(null=True, verbose_name="Keyword arguments")),
                ("eta", models.DateTimeField(null=True, verbose_name="ETA")),
                ("expires", models.DateTimeField(null=True, verbose_name="expires")),
                ("result", models.TextField(null=True, verbose_name="result")),
                ("traceback", models.TextField(null=True, verbose_name="traceback")),
                (
                    "runtime",
                    models.FloatField(
                        help_text="in seconds if task succeeded", null=True, verbose_name="execution time"
                    ),
                ),
                ("retries", models.IntegerField(default=0, verbose_name="number of retries")),
                ("hidden", models.BooleanField(default=False, db_index=True, editable=False)),
            ],
            options={
                "verbose_name": "task",
                "verbose_name_plural": "tasks",
                "ordering": ("-tstamp",),
                "get_latest_by": "tstamp",
            },
        ),
        _operations.CreateMissingModel(
            name="WorkerState",
            fields=[
                key(),
                ("hostname", models.CharField(unique=True, max_length=255, verbose_name="hostname")),
                (
                    "last_heartbeat",
                    models.DateTimeField(null=True, verbose_name="last heartbeat", db_index=True),
                ),
            ],
            options={
                "verbose_name": "worker",
                "verbose_name_plural": "workers",
                "ordering": ("-last_heartbeat",),
                "get_latest_by": "last_heartbeat",
            },
        ),
        _operations.AddMissingField(
            model_name="taskstate",
            name="worker",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                verbose_name="worker",
                to="djcelery.workerstate",
                null=True,
            ),
        ),
    ]

"""Solar and fixed times, the options of a periodic task, and the tables in which beats agree.

The new columns are nullable and have no default, so no engine rewrites a row of a legacy table for them. But
MySQL rewrites that of the periodic tasks, which is short, to check the two new references.
"""

import django.db.models.deletion
from django.db import migrations, models

from djcelery.migrations import _operations


def column(name, field, model_name="periodictask"):
    return _operations.AddMissingField(model_name=model_name, name=name, field=field)


def number(name, help_text):
    return column(
        name,
        models.IntegerField(blank=True, null=True, help_text=help_text, verbose_name=name.replace("_", " ")),
    )


def yes_or_no(name, verbose_name, help_text):
    return column(name, models.BooleanField(blank=True, null=True, help_text=help_text, verbose_name=verbose_name))


def reference(name, to, verbose_name):
    # Its index is 0008's.
    field = models.ForeignKey(
        blank=True,
        null=True,
        db_index=False,
        on_delete=django.db.models.deletion.PROTECT,
        to=to,
        verbose_name=verbose_name,
    )
    return column(name, field)


def changed_at():
    return models.DateTimeField(blank=True, editable=False, null=True)


def short_key():
    return models.AutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")


SOLAR_EVENTS = [
    ("dawn_astronomical", "Astronomical dawn"),
    ("dawn_nautical", "Nautical dawn"),
    ("dawn_civil", "Civil dawn"),
    ("sunrise", "Sunrise"),
    ("solar_noon", "Solar noon"),
    ("sunset", "Sunset"),
    ("dusk_civil", "Civil dusk"),
    ("dusk_nautical", "Nautical dusk"),
    ("dusk_astronomical", "Astronomical dusk"),
]


class Migration(migrations.Migration):
    dependencies = [("djcelery", "0006_result_indexes")]

    operations = [
        _operations.CreateMissingModel(
            name="SolarSchedule",
            fields=[
                ("id", short_key()),
                ("changed_at", changed_at()),
                ("event", models.CharField(choices=SOLAR_EVENTS, max_length=24, verbose_name="event")),
                (
                    "latitude",
                    models.DecimalField(
                        decimal_places=6,
                        help_text="Degrees, north positive: -90 to 90.",
                        max_digits=9,
                        verbose_name="latitude",
                    ),
                ),
                (
                    "longitude",
                    models.DecimalField(
                        decimal_places=6,
                        help_text="Degrees, east positive: -180 to 180.",
                        max_digits=9,
                        verbose_name="longitude",
                    ),
                ),
            ],
            options={
                "verbose_name": "event of the sun",
                "verbose_name_plural": "events of the sun",
                "ordering": ("event", "latitude", "longitude"),
            },
        ),
        _operations.CreateMissingModel(
            name="ClockedSchedule",
            fields=[
                ("id", short_key()),
                ("changed_at", changed_at()),
                ("clocked_time", models.DateTimeField(verbose_name="time")),
            ],
            options={
                "verbose_name": "fixed time",
                "verbose_name_plural": "fixed times",
                "ordering": ("clocked_time",),
                "indexes": [models.Index(fields=["clocked_time"], name="djcelery_clocked_time")],
            },
        ),
        _operations.CreateMissingModel(
            name="BeatLease",
            fields=[
                ("id", short_key()),
                ("name", models.CharField(max_length=64, verbose_name="name")),
                ("holder", models.CharField(max_length=255, verbose_name="holder")),
                ("token", models.BigIntegerField(verbose_name="token")),
                ("expires_at", models.DateTimeField(verbose_name="expires at")),
                ("acquired_at", models.DateTimeField(verbose_name="acquired at")),
            ],
            options={
                "verbose_name": "lease of beat",
                "verbose_name_plural": "leases of beat",
                "constraints": [models.UniqueConstraint(fields=("name",), name="djcelery_beatlease_name")],
            },
        ),
        _operations.CreateMissingModel(
            name="PeriodicRun",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("periodic_task_id", models.IntegerField(verbose_name="periodic task")),
                ("name", models.CharField(max_length=200, verbose_name="name")),
                ("scheduled_at", models.DateTimeField(verbose_name="scheduled at")),
                ("task_id", models.CharField(max_length=255, verbose_name="task id")),
                ("claimed_at", models.DateTimeField(verbose_name="claimed at")),
                ("sent_at", models.DateTimeField(null=True, verbose_name="sent at")),
                (
                    "outcome",
                    models.CharField(
                        choices=[("sent", "sent"), ("skipped", "skipped"), ("dropped", "dropped")],
                        max_length=16,
                        null=True,
                        verbose_name="outcome",
                    ),
                ),
                ("error", models.TextField(null=True, verbose_name="error")),
                ("token", models.BigIntegerField()),
            ],
            options={
                "verbose_name": "run of a periodic task",
                "verbose_name_plural": "runs of periodic tasks",
                "indexes": [models.Index(fields=["outcome", "scheduled_at"], name="djcelery_periodicrun_outcome")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("periodic_task_id", "scheduled_at"), name="djcelery_periodicrun_once"
                    ),
                    models.UniqueConstraint(fields=("task_id",), name="djcelery_periodicrun_task_id"),
                ],
            },
        ),
        _operations.CreateMissingModel(
            name="ScheduleChange",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("kind", models.CharField(max_length=16)),
                ("key", models.IntegerField(null=True)),
                ("created", models.DateTimeField()),
            ],
            options={"verbose_name": "note of a change", "verbose_name_plural": "notes of changes"},
        ),
        column("changed_at", changed_at(), "intervalschedule"),
        column("changed_at", changed_at(), "crontabschedule"),
        column(
            "timezone",
            models.CharField(
                blank=True,
                help_text="Such as Europe/Brussels; empty for the zone of the Celery app.",
                max_length=63,
                null=True,
                verbose_name="time zone",
            ),
            "crontabschedule",
        ),
        migrations.AlterModelOptions(
            name="periodictask",
            options={
                "base_manager_name": "objects",
                "verbose_name": "periodic task",
                "verbose_name_plural": "periodic tasks",
            },
        ),
        reference("solar", "djcelery.solarschedule", "event of the sun"),
        reference("clocked", "djcelery.clockedschedule", "fixed time"),
        yes_or_no("one_off", "one-off", "The task is switched off when it was sent."),
        column(
            "start_time",
            models.DateTimeField(
                blank=True,
                help_text="The first time at which it may run; intervals count from it.",
                null=True,
                verbose_name="start time",
            ),
        ),
        column(
            "priority",
            models.SmallIntegerField(
                blank=True, help_text="0 to 255, for the broker.", null=True, verbose_name="priority"
            ),
        ),
        column(
            "headers",
            models.TextField(blank=True, help_text="JSON encoded message headers", null=True, verbose_name="headers"),
        ),
        number("expire_seconds", "Seconds after its time when a run is of no use any more."),
        column("scheduled_from", models.DateTimeField(blank=True, editable=False, null=True)),
        column(
            "missed_runs",
            models.CharField(
                blank=True,
                choices=[("skip", "skip them"), ("once", "run once"), ("all", "run all")],
                help_text="What to do about runs that were missed; empty for one run, if within the grace time.",
                max_length=16,
                null=True,
                verbose_name="missed runs",
            ),
        ),
        number("grace_seconds", "How late a missed run may be made up for; empty for one period, at most a day."),
        yes_or_no("no_overlap", "no overlap", "Pass over a run while the one before is not done."),
        number("overlap_timeout", "Seconds after which a run that is not done counts as lost."),
        number("jitter_seconds", "Send each run up to so many seconds later."),
        column("last_error", models.TextField(blank=True, editable=False, null=True, verbose_name="last error")),
        column(
            "origin",
            models.CharField(blank=True, editable=False, max_length=16, null=True, verbose_name="origin"),
        ),
        column("origin_digest", models.CharField(blank=True, editable=False, max_length=64, null=True)),
    ]

"""More of what events say of tasks and workers, and the tables that outlive rows of tasks.

The new columns are nullable and have no default, so no engine rewrites a row of a legacy table for them.
"""

from django.db import migrations, models

from djcelery.migrations import _operations


class Migration(migrations.Migration):
    dependencies = [
        ("djcelery", "0008_schedule_indexes"),
    ]

    operations = [
        _operations.CreateMissingModel(
            name="BeatStandby",
            fields=[
                ("id", models.AutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=64, verbose_name="name")),
                ("holder", models.CharField(max_length=255, verbose_name="holder")),
                ("seen_at", models.DateTimeField(verbose_name="seen at")),
            ],
            options={
                "verbose_name": "beat that stands by",
                "verbose_name_plural": "beats that stand by",
                "constraints": [models.UniqueConstraint(fields=("holder",), name="djcelery_beatstandby_holder")],
            },
        ),
        _operations.CreateMissingModel(
            name="MalformedEvent",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("seen_at", models.DateTimeField(verbose_name="seen at")),
                ("camera", models.CharField(max_length=255, verbose_name="camera")),
                ("reason", models.CharField(max_length=255, verbose_name="reason")),
                ("body", models.TextField(help_text="cut to 2,000 characters", verbose_name="event")),
            ],
            options={
                "verbose_name": "malformed event",
                "verbose_name_plural": "malformed events",
            },
        ),
        _operations.CreateMissingModel(
            name="MonitorGate",
            fields=[
                ("id", models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("written_at", models.DateTimeField()),
            ],
            options={
                "verbose_name": "gate of the monitor",
                "verbose_name_plural": "gates of the monitor",
            },
        ),
        migrations.AlterModelOptions(
            name="periodictask",
            options={
                "base_manager_name": "objects",
                "permissions": (("run_periodictask", "Can run periodic tasks at once"),),
                "verbose_name": "periodic task",
                "verbose_name_plural": "periodic tasks",
            },
        ),
        migrations.AlterModelOptions(
            name="taskstate",
            options={
                "get_latest_by": "tstamp",
                "ordering": ("-tstamp",),
                "permissions": (
                    ("revoke_taskstate", "Can revoke tasks"),
                    ("terminate_taskstate", "Can terminate running tasks"),
                    ("kill_taskstate", "Can kill running tasks"),
                    ("ratelimit_taskstate", "Can limit the rate of tasks"),
                    ("retry_taskstate", "Can send tasks again"),
                    ("arguments_taskstate", "Can see arguments and results of tasks"),
                    ("apply_taskstate", "Can send the tasks that views may send"),
                ),
                "verbose_name": "task",
                "verbose_name_plural": "tasks",
            },
        ),
        migrations.AlterModelOptions(
            name="workerstate",
            options={
                "get_latest_by": "last_heartbeat",
                "ordering": ("-last_heartbeat",),
                "permissions": (
                    ("shutdown_workerstate", "Can shut workers down"),
                    ("events_workerstate", "Can switch the events of workers on and off"),
                    ("pool_workerstate", "Can grow and shrink the pools of workers"),
                    ("consumer_workerstate", "Can have workers take from queues or leave them"),
                    ("timelimit_workerstate", "Can set time limits of tasks on workers"),
                    ("inspect_workerstate", "Can ask workers what they do"),
                ),
                "verbose_name": "worker",
                "verbose_name_plural": "workers",
            },
        ),
        _operations.AddMissingField(
            model_name="taskstate",
            name="client",
            field=models.CharField(
                blank=True,
                editable=False,
                help_text="who sent the task",
                max_length=255,
                null=True,
                verbose_name="client",
            ),
        ),
        _operations.AddMissingField(
            model_name="taskstate",
            name="exception",
            field=models.TextField(blank=True, editable=False, null=True, verbose_name="exception"),
        ),
        _operations.AddMissingField(
            model_name="taskstate",
            name="finished_at",
            field=models.DateTimeField(blank=True, editable=False, null=True, verbose_name="finished at"),
        ),
        _operations.AddMissingField(
            model_name="taskstate",
            name="flags",
            field=models.CharField(
                blank=True,
                editable=False,
                help_text="what was cut, escaped or redacted",
                max_length=255,
                null=True,
                verbose_name="flags",
            ),
        ),
        _operations.AddMissingField(
            model_name="taskstate",
            name="parent_id",
            field=models.CharField(
                blank=True, editable=False, max_length=255, null=True, verbose_name="parent task id"
            ),
        ),
        _operations.AddMissingField(
            model_name="taskstate",
            name="progress",
            field=models.TextField(
                blank=True,
                editable=False,
                help_text="JSON of the last event of the project's own",
                null=True,
                verbose_name="progress",
            ),
        ),
        _operations.AddMissingField(
            model_name="taskstate",
            name="queue",
            field=models.CharField(blank=True, editable=False, max_length=200, null=True, verbose_name="queue"),
        ),
        _operations.AddMissingField(
            model_name="taskstate",
            name="received_at",
            field=models.DateTimeField(blank=True, editable=False, null=True, verbose_name="received at"),
        ),
        _operations.AddMissingField(
            model_name="taskstate",
            name="retried_as",
            field=models.CharField(blank=True, editable=False, max_length=36, null=True, verbose_name="retried as"),
        ),
        _operations.AddMissingField(
            model_name="taskstate",
            name="root_id",
            field=models.CharField(blank=True, editable=False, max_length=255, null=True, verbose_name="root task id"),
        ),
        _operations.AddMissingField(
            model_name="taskstate",
            name="routing_key",
            field=models.CharField(blank=True, editable=False, max_length=200, null=True, verbose_name="routing key"),
        ),
        _operations.AddMissingField(
            model_name="taskstate",
            name="sent_at",
            field=models.DateTimeField(blank=True, editable=False, null=True, verbose_name="sent at"),
        ),
        _operations.AddMissingField(
            model_name="taskstate",
            name="started_at",
            field=models.DateTimeField(blank=True, editable=False, null=True, verbose_name="started at"),
        ),
        _operations.AddMissingField(
            model_name="workerstate",
            name="active",
            field=models.IntegerField(
                blank=True, editable=False, help_text="tasks that run now", null=True, verbose_name="active"
            ),
        ),
        _operations.AddMissingField(
            model_name="workerstate",
            name="clock_skew",
            field=models.FloatField(
                blank=True,
                editable=False,
                help_text="seconds by which its clock is ahead of the camera's",
                null=True,
                verbose_name="clock skew",
            ),
        ),
        _operations.AddMissingField(
            model_name="workerstate",
            name="frequency",
            field=models.FloatField(
                blank=True,
                editable=False,
                help_text="seconds between two heartbeats",
                null=True,
                verbose_name="heartbeat interval",
            ),
        ),
        _operations.AddMissingField(
            model_name="workerstate",
            name="load",
            field=models.CharField(
                blank=True,
                editable=False,
                help_text="of 1, 5 and 15 minutes",
                max_length=64,
                null=True,
                verbose_name="load",
            ),
        ),
        _operations.AddMissingField(
            model_name="workerstate",
            name="missed",
            field=models.BigIntegerField(
                blank=True,
                editable=False,
                help_text="tasks it ran of which no event came",
                null=True,
                verbose_name="missed",
            ),
        ),
        _operations.AddMissingField(
            model_name="workerstate",
            name="offline_at",
            field=models.DateTimeField(
                blank=True,
                editable=False,
                help_text="when it said good-bye; empty if it did not",
                null=True,
                verbose_name="offline since",
            ),
        ),
        _operations.AddMissingField(
            model_name="workerstate",
            name="online_at",
            field=models.DateTimeField(blank=True, editable=False, null=True, verbose_name="online since"),
        ),
        _operations.AddMissingField(
            model_name="workerstate",
            name="pid",
            field=models.BigIntegerField(blank=True, editable=False, null=True, verbose_name="process id"),
        ),
        _operations.AddMissingField(
            model_name="workerstate",
            name="processed",
            field=models.BigIntegerField(
                blank=True,
                editable=False,
                help_text="tasks since the worker started, by its own count",
                null=True,
                verbose_name="processed",
            ),
        ),
        _operations.AddMissingField(
            model_name="workerstate",
            name="seen",
            field=models.BigIntegerField(
                blank=True,
                editable=False,
                help_text="tasks since the worker started of which events came, or that are counted as missed",
                null=True,
                verbose_name="seen",
            ),
        ),
        _operations.AddMissingField(
            model_name="workerstate",
            name="software",
            field=models.CharField(blank=True, editable=False, max_length=64, null=True, verbose_name="software"),
        ),
        _operations.AddMissingField(
            model_name="workerstate",
            name="system",
            field=models.CharField(blank=True, editable=False, max_length=64, null=True, verbose_name="system"),
        ),
        _operations.AddMissingField(
            model_name="workerstate",
            name="version",
            field=models.CharField(blank=True, editable=False, max_length=64, null=True, verbose_name="version"),
        ),
        _operations.CreateMissingModel(
            name="CameraState",
            fields=[
                ("id", models.AutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=255, verbose_name="name")),
                ("hostname", models.CharField(max_length=255, verbose_name="host")),
                ("pid", models.BigIntegerField(verbose_name="process id")),
                ("started_at", models.DateTimeField(verbose_name="started at")),
                ("shutter_at", models.DateTimeField(verbose_name="last shutter at")),
                ("event_at", models.DateTimeField(null=True, verbose_name="last event at")),
                ("stopped_at", models.DateTimeField(null=True, verbose_name="stopped at")),
                ("frequency", models.FloatField(verbose_name="seconds between two shutters")),
                ("events", models.BigIntegerField(default=0, verbose_name="events")),
                ("malformed", models.BigIntegerField(default=0, verbose_name="malformed events")),
                (
                    "dropped",
                    models.BigIntegerField(
                        default=0,
                        help_text="tasks beyond the limit of what may wait to be written",
                        verbose_name="dropped",
                    ),
                ),
                (
                    "refused",
                    models.BigIntegerField(
                        default=0, help_text="rows that the database refused", verbose_name="refused"
                    ),
                ),
                (
                    "missed",
                    models.BigIntegerField(
                        default=0, help_text="tasks that ran and of which no event came", verbose_name="missed"
                    ),
                ),
                (
                    "waiting",
                    models.IntegerField(default=0, help_text="tasks that wait to be written", verbose_name="waiting"),
                ),
                ("error", models.TextField(null=True, verbose_name="error")),
            ],
            options={
                "verbose_name": "camera",
                "verbose_name_plural": "cameras",
                "constraints": [models.UniqueConstraint(fields=("name",), name="djcelery_camerastate_name")],
            },
        ),
        _operations.CreateMissingModel(
            name="TaskHistory",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("period", models.CharField(max_length=8)),
                ("start", models.DateTimeField(verbose_name="start")),
                ("name", models.CharField(max_length=200, verbose_name="name")),
                ("state", models.CharField(max_length=64, verbose_name="state")),
                ("count", models.BigIntegerField(verbose_name="count")),
                ("runtime_count", models.BigIntegerField(default=0)),
                ("runtime_sum", models.FloatField(default=0)),
                ("runtime_max", models.FloatField(null=True)),
                ("waiting_count", models.BigIntegerField(default=0)),
                ("waiting_sum", models.FloatField(default=0)),
                ("waiting_max", models.FloatField(null=True)),
                ("runtime_histogram", models.TextField(default="")),
                ("waiting_histogram", models.TextField(default="")),
            ],
            options={
                "verbose_name": "history of tasks",
                "verbose_name_plural": "history of tasks",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("period", "start", "name", "state"), name="djcelery_taskhistory_once"
                    )
                ],
            },
        ),
        # In words; the columns stay as they are.
        migrations.AlterField(
            model_name="periodictask",
            name="last_run_at",
            field=models.DateTimeField(blank=True, editable=False, null=True, verbose_name="last run"),
        ),
        migrations.AlterField(
            model_name="periodictask",
            name="total_run_count",
            field=models.PositiveIntegerField(default=0, editable=False, verbose_name="number of runs"),
        ),
    ]

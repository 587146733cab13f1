"""The whole life of a task in its result row, and the tables in which chords count their parts.

The new columns are nullable and have no default, so no engine rewrites a row; but MySQL does if the
table has a row format of its releases before 5.7, into which they don't fit.
"""

from django.db import migrations, models

from djcelery.migrations import _operations


def column(name, field):
    return _operations.AddMissingField(model_name="taskmeta", name=name, field=field)


def text(name, verbose_name):
    return column(
        name, models.CharField(max_length=255, null=True, blank=True, editable=False, verbose_name=verbose_name)
    )


def json(name, verbose_name):
    return column(name, models.JSONField(null=True, blank=True, editable=False, verbose_name=verbose_name))


def instant(name, verbose_name):
    return column(name, models.DateTimeField(null=True, blank=True, editable=False, verbose_name=verbose_name))


class Migration(migrations.Migration):
    dependencies = [("djcelery", "0004_legacy_indexes")]

    operations = [
        _operations.UseDynamicRows(),
        text("name", "task name"),
        json("args", "arguments"),
        json("kwargs", "keyword arguments"),
        text("worker", "worker"),
        text("queue", "queue"),
        text("periodic_task", "periodic task"),
        column("retries", models.IntegerField(null=True, blank=True, editable=False, verbose_name="retries")),
        text("root_id", "root task id"),
        text("parent_id", "parent task id"),
        text("group_id", "group id"),
        instant("created", "sent at"),
        instant("started", "started at"),
        instant("finished", "finished at"),
        column(
            "runtime",
            models.FloatField(
                help_text="in seconds, of the last execution",
                null=True,
                blank=True,
                editable=False,
                verbose_name="execution time",
            ),
        ),
        json("progress", "progress"),
        column(
            "flags",
            models.CharField(
                help_text="what was cut, escaped or redacted",
                max_length=255,
                null=True,
                blank=True,
                editable=False,
                verbose_name="flags",
            ),
        ),
        _operations.CreateMissingModel(
            name="Chord",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("group_id", models.CharField(max_length=255, unique=True, verbose_name="group id")),
                (
                    "size",
                    models.IntegerField(help_text="empty until the last part is sent", null=True, verbose_name="parts"),
                ),
                ("added", models.IntegerField(default=0, verbose_name="parts added by tasks")),
                ("done", models.IntegerField(default=0, verbose_name="parts that returned")),
                ("header", models.TextField(null=True)),
                ("content_type", models.CharField(max_length=128, null=True)),
                ("content_encoding", models.CharField(max_length=64, null=True)),
                ("claimed_by", models.CharField(max_length=255, null=True)),
                ("claimed_at", models.DateTimeField(null=True)),
                ("dispatched_at", models.DateTimeField(null=True, verbose_name="callback sent at")),
                ("changed_at", models.DateTimeField(db_index=True, verbose_name="changed at")),
            ],
            options={"verbose_name": "chord", "verbose_name_plural": "chords"},
        ),
        _operations.CreateMissingModel(
            name="ChordPart",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("group_id", models.CharField(max_length=255)),
                ("task_id", models.CharField(max_length=255)),
                ("position", models.IntegerField()),
                ("state", models.CharField(max_length=50)),
                ("value", models.TextField(null=True)),
                ("content_type", models.CharField(max_length=128, null=True)),
                ("content_encoding", models.CharField(max_length=64, null=True)),
            ],
            options={
                "verbose_name": "part of a chord",
                "verbose_name_plural": "parts of chords",
                "constraints": [
                    models.UniqueConstraint(fields=("group_id", "task_id", "position"), name="djcelery_chordpart_once")
                ],
            },
        ),
    ]

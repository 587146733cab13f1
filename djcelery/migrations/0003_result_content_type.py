"""Say beside each stored value how it is encoded; read old pickles by a list of what they may name.

The new columns are nullable and have no default, so no engine rewrites a row. Everything else is
state: it must never reach a database, where SQLite would remake the table for it.
"""

import django.db.models.deletion
from django.db import migrations, models

import djcelery.picklefield


def content_type(model_name):
    return migrations.AddField(
        model_name=model_name,
        name="content_type",
        field=models.CharField(
            editable=False,
            help_text="How the values are encoded; empty for a pickle that django-celery wrote.",
            max_length=128,
            null=True,
            verbose_name="content type",
        ),
    )


def content_encoding(model_name):
    return migrations.AddField(
        model_name=model_name,
        name="content_encoding",
        field=models.CharField(editable=False, max_length=64, null=True),
    )


class Migration(migrations.Migration):
    dependencies = [("djcelery", "0002_legacy_columns")]

    operations = [
        content_type("taskmeta"),
        content_encoding("taskmeta"),
        content_type("tasksetmeta"),
        content_encoding("tasksetmeta"),
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField(
                    model_name="taskmeta",
                    name="result",
                    field=djcelery.picklefield.StoredValueField(default=None, editable=False, null=True),
                ),
                migrations.AlterField(
                    model_name="taskmeta",
                    name="meta",
                    field=djcelery.picklefield.StoredValueField(default=None, editable=False, null=True),
                ),
                migrations.AlterField(
                    model_name="tasksetmeta",
                    name="result",
                    field=djcelery.picklefield.StoredValueField(editable=False),
                ),
                migrations.AlterField(
                    model_name="periodictask",
                    name="crontab",
                    field=models.ForeignKey(
                        blank=True,
                        help_text="Use one of interval/crontab",
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="djcelery.crontabschedule",
                        verbose_name="crontab",
                    ),
                ),
                migrations.AlterField(
                    model_name="periodictask",
                    name="interval",
                    field=models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="djcelery.intervalschedule",
                        verbose_name="interval",
                    ),
                ),
            ],
        ),
    ]

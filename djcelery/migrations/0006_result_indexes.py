"""Index what the retention rules and the querysets filter by, without a lock on PostgreSQL."""

from django.db import migrations, models

from djcelery.migrations import _operations


class Migration(migrations.Migration):
    # CREATE INDEX CONCURRENTLY can't run in a transaction.
    atomic = False
    dependencies = [("djcelery", "0005_result_columns")]
    operations = [
        _operations.AddIndexWithoutLock(
            "taskmeta", models.Index(fields=("status", "date_done"), name="djcelery_taskmeta_state_done")
        ),
        _operations.AddIndexWithoutLock(
            "taskmeta",
            # PostgreSQL alone has operator classes: this one serves LIKE 'shop.%' too, whatever the collation.
            models.Index(
                fields=("name", "date_done"),
                name="djcelery_taskmeta_name_done",
                opclasses=("varchar_pattern_ops", "timestamptz_ops"),
            ),
        ),
    ]

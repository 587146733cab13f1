"""Index the new references of periodic tasks, without a lock on PostgreSQL."""

from django.db import migrations, models

from djcelery.migrations import _operations


class Migration(migrations.Migration):
    # CREATE INDEX CONCURRENTLY can't run in a transaction.
    atomic = False
    dependencies = [("djcelery", "0007_schedule")]
    operations = [
        _operations.AddIndexWithoutLock(
            "periodictask", models.Index(fields=("solar",), name="djcelery_periodictask_solar")
        ),
        _operations.AddIndexWithoutLock(
            "periodictask", models.Index(fields=("clocked",), name="djcelery_periodictask_clocked")
        ),
    ]

"""Index what the lists of tasks and results filter and order by, without a lock on PostgreSQL."""

from django.db import migrations, models

from djcelery.migrations import _operations
from djcelery.models.indexes import FilterIndex, SparseIndex

TASKS = (
    FilterIndex(fields=("state", "tstamp"), name="djcelery_task_state"),
    # PostgreSQL alone has operator classes: this one serves LIKE 'shop.%' too, whatever the collation.
    FilterIndex(fields=("name", "tstamp"), name="djcelery_task_name", opclasses=("varchar_pattern_ops", "")),
    FilterIndex(fields=("worker", "tstamp"), name="djcelery_task_worker"),
    FilterIndex(fields=("name", "state", "tstamp"), name="djcelery_task_name_state"),
    FilterIndex(fields=("worker", "state", "tstamp"), name="djcelery_task_worker_state"),
    FilterIndex(fields=("name", "worker", "tstamp"), name="djcelery_task_name_worker"),
    SparseIndex(fields=("eta",), name="djcelery_task_eta", present="eta"),
    SparseIndex(fields=("root_id", "parent_id"), name="djcelery_task_root", present="parent_id"),
    SparseIndex(fields=("retried_as",), name="djcelery_task_again", present="retried_as"),
)
RESULTS = (
    models.Index(fields=("date_done",), name="djcelery_taskmeta_done"),
    models.Index(
        fields=("worker", "date_done"), name="djcelery_taskmeta_worker", opclasses=("varchar_pattern_ops", "")
    ),
    FilterIndex(fields=("name", "status", "date_done"), name="djcelery_taskmeta_name_state"),
    FilterIndex(fields=("worker", "status", "date_done"), name="djcelery_taskmeta_worker_state"),
    FilterIndex(fields=("name", "worker", "date_done"), name="djcelery_taskmeta_name_worker"),
    SparseIndex(fields=("root_id",), name="djcelery_taskmeta_root", present="parent_id"),
)
GROUPS = (models.Index(fields=("date_done",), name="djcelery_tasksetmeta_done"),)


class Migration(migrations.Migration):
    # CREATE INDEX CONCURRENTLY can't run in a transaction.
    atomic = False
    dependencies = [("djcelery", "0009_monitor")]
    operations = [
        _operations.AddIndexWithoutLock(model, index)
        for model, indexes in (("taskstate", TASKS), ("taskmeta", RESULTS), ("tasksetmeta", GROUPS))
        for index in indexes
    ]

"""Tables that an older release of django-celery-results or django-celery-beat made are imported, too."""

from __future__ import annotations

import pytest

from djcelery.importing import BeatImport, ResultImport, TableUnknown
from djcelery.models import PeriodicTask, TaskMeta
from tests.db import peer_tables
from tests.db.peer_tables import CLOCKED, CRONTAB, GROUP, INTERVAL, RESULT, SOLAR, TASK, WHEN

#: What the first releases lacked; "*" is the whole table.
OLD = {
    RESULT: ("periodic_task_name", "task_name", "task_args", "task_kwargs", "worker", "date_created", "date_started"),
    GROUP: ("*",),
    peer_tables.CHORD: ("*",),
    CRONTAB: ("timezone",),
    SOLAR: ("*",),
    CLOCKED: ("*",),
    TASK: ("solar_id", "clocked_id", "headers", "priority", "expire_seconds", "one_off", "start_time"),
}


@pytest.fixture(params=["sqlite", *(pytest.param(name, marks=pytest.mark.long) for name in ("postgresql", "mysql"))])
def migrated(request, make_database):
    """A database on each engine with our tables."""
    database = make_database(request.param)
    database.migrate()
    return database


def test_columns_and_tables_that_an_old_release_lacks_are_empty(migrated, celery_app):
    connection, alias = migrated.connection, migrated.alias
    with peer_tables.made(connection, OLD):
        peer_tables.add(connection, RESULT, task_id="a", result="[1]")
        crontab = peer_tables.add(connection, CRONTAB, minute="30")
        peer_tables.add(connection, TASK, name="half past", crontab_id=crontab, last_run_at=WHEN)
        assert ResultImport(celery_app, alias).run().left_out == 0
        assert BeatImport(celery_app, alias).run().left_out == 0
    stored = TaskMeta.objects.using(alias).get()
    assert (stored.result, stored.name, stored.args, stored.created, stored.finished) == ([1], None, None, None, WHEN)
    task = PeriodicTask.objects.using(alias).get()
    assert (task.crontab.minute, task.crontab.timezone, task.last_run_at) == ("30", None, WHEN)
    assert (task.one_off, task.headers, task.priority, task.start_time) == (False, None, None, None)


def test_without_their_tables_nothing_is_imported(migrated, celery_app):
    for kind in (ResultImport, BeatImport):
        with pytest.raises(TableUnknown, match="has no table django_celery_"):
            kind(celery_app, migrated.alias).run()
    with peer_tables.made(migrated.connection, {INTERVAL: ("*",), CRONTAB: ("*",)}):
        peer_tables.add(migrated.connection, TASK, name="a", interval_id=1)
        summary = BeatImport(celery_app, migrated.alias).run()
    assert list(summary.reasons) == ["its interval 1 is gone"]

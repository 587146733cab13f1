"""Which tasks still run: for entries that must not overlap with their own last run.

Called by ``scheduler`` for due entries that ask for it; reads the run history and the result table.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from celery import states
from django.db import router
from django.db.models import OuterRef, Q, Subquery

from djcelery import utils
from djcelery.managers.runs import OVERLAP_TIMEOUT_S
from djcelery.models import PeriodicRun, PeriodicTask, TaskMeta
from djcelery.schedulers import statements
from djcelery.schedulers.plans import Plan


def still_running(alias: str, plans: Sequence[Plan], now: datetime) -> dict[int, str]:
    """Return the task id of the last run of those *plans* whose last run is not done, by the key of the task.

    Done is what the result table says is done. A run of which it knows nothing (its result is not stored,
    or stored elsewhere) counts as running until the timeout.

    Database: one SELECT; two if results are in another database.
    """
    timeouts = {plan.pk: timedelta(seconds=plan.rules.overlap_timeout or OVERLAP_TIMEOUT_S) for plan in plans}
    # A replica that lags would know nothing of a run that is done, or has just begun.
    results_alias = router.db_for_write(TaskMeta)

    def work(connection: Any, is_retry: bool) -> list[tuple[Any, ...]]:
        runs = (
            PeriodicRun.objects.using(alias)
            .filter(Q(outcome=PeriodicRun.SENT) | Q(outcome=None), periodic_task_id=OuterRef("pk"))
            .order_by("-scheduled_at")
        )
        tasks = PeriodicTask._base_manager.using(alias).filter(pk__in=list(timeouts))
        found = tasks.annotate(
            run_id=Subquery(runs.values("task_id")[:1]), run_at=Subquery(runs.values("claimed_at")[:1])
        )
        if results_alias == alias:
            states_of = TaskMeta._base_manager.using(alias).filter(task_id=OuterRef("run_id")).values("status")
            return list(
                found.annotate(run_state=Subquery(states_of[:1])).values_list("pk", "run_id", "run_at", "run_state")
            )
        rows = list(found.values_list("pk", "run_id", "run_at"))
        results = TaskMeta._base_manager.using(results_alias).filter(task_id__in=[row[1] for row in rows])
        state_by_id = dict(results.values_list("task_id", "status"))
        return [(*row, state_by_id.get(row[1])) for row in rows]

    rows = statements.attempt(alias, work, lambda: True)
    return {
        pk: run_id
        for pk, run_id, run_at, state in rows
        if run_id and state not in states.READY_STATES and utils.to_utc(run_at) + timeouts[pk] > now
    }

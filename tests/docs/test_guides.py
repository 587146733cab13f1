"""The Python of the guides runs as it stands: on a database, in the order of the page."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from celery import _state

from djcelery.conf import Conf, conf
from djcelery.models import PeriodicRun, PeriodicTask, ScheduleChange, TaskHistory, TaskMeta
from tests.docs import pages


@pytest.fixture
def run(celery_app, settings):
    """Return a function that runs all Python of a page, and what it has made."""
    before = set(_state._on_app_finalizers)

    def run_page(page: str) -> dict:
        names = {"__name__": page, "app": celery_app}
        for block in pages.blocks(pages.read(page)):
            if block.language == "python":
                exec(compile(block.text, f"{page}.rst", "exec"), names)
        for name, value in names.items():
            if name.isupper() and name in Conf.all():
                setattr(settings, name, value)
                # Reading parses it.
                getattr(conf, name)
        return names

    yield run_page
    _state._on_app_finalizers.intersection_update(before)


@pytest.mark.django_db
def test_results(run, celery_app):
    charge = {"name": "shop.tasks.charge", "kwargs": {"order_id": 17}, "worker": "celery@web1"}
    TaskMeta.objects.create(task_id="id1", status="FAILURE", **charge)
    TaskMeta.objects.create(task_id="id2", status="STARTED", **charge)
    names = run("results")
    assert [row.task_id for row in names["charges"].failed().filter(kwargs__order_id=17)] == ["id1"]
    assert frozenset({"kwargs.password", "kwargs.card"}) == frozenset(conf.DJCELERY_REDACT)
    assert names["charge"].redact == ["args", "kwargs", "result"]
    assert len(conf.DJCELERY_RETENTION) >= 4


@pytest.mark.django_db
def test_schedule(run, capsys, monkeypatch):
    made = []
    save = PeriodicTask.save

    def save_and_run(self, *args, **kwargs):
        # Beat has sent it once by the time that the page looks at its history.
        save(self, *args, **kwargs)
        now = datetime.now(timezone.utc)
        times = {"scheduled_at": now - timedelta(seconds=20), "claimed_at": now, "sent_at": now}
        fields = {"name": self.name, "task_id": self.name, "outcome": "sent", "token": 1}
        made.append(PeriodicRun.objects.create(periodic_task_id=self.pk, **times, **fields))

    monkeypatch.setattr(PeriodicTask, "save", save_and_run)
    run("schedule")
    assert [row.name for row in made] == ["close the books", "poll"]
    assert " 0:00:20 poll None sent None" in capsys.readouterr().out
    assert not PeriodicTask.objects.get(name="poll").enabled
    assert ScheduleChange.objects.filter(kind="all").exists()
    PeriodicTask.objects.get(name="close the books").full_clean()


@pytest.mark.django_db
def test_monitor(run, capsys):
    pytest.importorskip("prometheus_client", reason="not installed: pip install 'djcelery[metrics]'")
    hour = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
    lengths = {"runtime_count": 1, "runtime_sum": 0.5, "runtime_max": 0.5, "runtime_histogram": "8:1"}
    row = {"start": hour, "name": "shop.tasks.charge", "state": "SUCCESS", "count": 1}
    TaskHistory.objects.create(period="hour", **row, **lengths)
    names = run("monitor")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "shop.tasks.charge 1 0 0.5 0.5"
    assert names["urlpatterns"][0].callback is names["metrics_view"]

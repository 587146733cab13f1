"""``manage.py celeryresults cleanup``."""

from __future__ import annotations

import io
import os
import signal
import threading
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from djcelery import utils
from djcelery.management import results_progress
from djcelery.models import Chord, TaskMeta, TaskSetMeta

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def results(celery_app, settings):
    """Rows of which most are expired, and the settings that say so."""
    settings.CELERY_RESULT_EXPIRES = DAY
    settings.DJCELERY_RETENTION = {"FAILURE": 10 * DAY, "shop.*": {"SUCCESS": None}}
    for task_id, status, days, name in (
        ("new", "SUCCESS", 0.5, None),
        ("old1", "SUCCESS", 2, None),
        ("old2", "SUCCESS", 3, "other"),
        ("failed", "FAILURE", 5, "shop.charge"),
        ("failed long ago", "FAILURE", 20, "shop.charge"),
        ("charge", "SUCCESS", 20, "shop.charge"),
        ("hidden", "SUCCESS", 0, None),
    ):
        TaskMeta.objects.create(task_id=task_id, status=status, name=name, hidden=task_id == "hidden")
        TaskMeta.objects.filter(task_id=task_id).update(date_done=utils.now() - timedelta(days=days))
    TaskSetMeta.objects.create(taskset_id="group", result=1)
    TaskSetMeta.objects.update(date_done=utils.now() - 2 * DAY)
    Chord.objects.create(group_id="chord", changed_at=utils.now() - 2 * DAY)


def run(*args):
    out = io.StringIO()
    call_command("celeryresults", "cleanup", *args, stdout=out)
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def left():
    return set(TaskMeta.objects.values_list("task_id", flat=True))


EXPECTED = [
    "1 hidden results",
    "1 results older than 10 days, 0:00:00 (DJCELERY_RETENTION['FAILURE'])",
    "2 results older than 1 day, 0:00:00 (CELERY_RESULT_EXPIRES)",
    "1 saved groups older than 1 day, 0:00:00 (CELERY_RESULT_EXPIRES)",
    "1 chords",
]


def test_dry_run_counts_by_rule_and_deletes_nothing():
    lines = run("--dry-run")
    assert sorted(lines[:-1]) == sorted(EXPECTED)
    assert lines[-1] == "Nothing was deleted: this is a dry run."
    assert (TaskMeta.objects.count(), TaskSetMeta.objects.count(), Chord.objects.count()) == (7, 1, 1)


def test_it_deletes_what_the_dry_run_counts():
    lines = run()
    assert sorted(lines[:-1]) == sorted(EXPECTED)
    assert lines[-1].startswith("Deleted 6 rows in ")
    assert left() == {"new", "failed", "charge"}
    assert (TaskSetMeta.objects.count(), Chord.objects.count()) == (0, 0)


def test_an_age_beyond_the_calendar_deletes_no_chord(settings):
    settings.CELERY_RESULT_EXPIRES = timedelta(days=1_000_000)
    assert "0 chords" in run("--dry-run")
    run()
    assert Chord.objects.count() == 1


@pytest.mark.parametrize(
    ("args", "gone"),
    [
        (["--older-than", "12h"], {"old1", "old2", "failed", "failed long ago", "charge", "hidden", "new"}),
        (["--older-than", "4d"], {"failed", "failed long ago", "charge", "hidden"}),
        (["--older-than", "345600"], {"failed", "failed long ago", "charge", "hidden"}),
        (["--state", "FAILURE"], {"failed long ago"}),
        (["--state", "FAILURE", "--state", "RETRY", "--older-than", "1w"], {"failed long ago"}),
        (["--task", "shop.*"], {"failed long ago"}),
        (["--task", "shop.*", "--older-than", "1w"], {"failed long ago", "charge"}),
        (["--task", "other", "--task", "none"], {"old2"}),
        (["--task", "shop.charge", "--state", "SUCCESS"], set()),
    ],
)
def test_options_choose_the_age_and_the_rows(args, gone):
    before = left()
    run(*args)
    assert before - left() == gone
    narrowed = "--state" in args or "--task" in args
    assert TaskSetMeta.objects.count() == (1 if narrowed or args[1] != "12h" else 0)
    # A chord may wait for a task that runs: an age that is meant for results doesn't touch it.
    assert Chord.objects.count() == 1


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--older-than", "0"], "'0' is no age above 0: write seconds, or 90m"),
        (["--older-than", "yesterday"], "'yesterday' is no age above 0"),
        (["--older-than", "9" * 30], "is no age above 0"),
        (["--batch-rows", "0"], "'0' is no number of rows above 0"),
        (["--database", "nowhere"], "'nowhere' is not in DATABASES; there are default"),
    ],
)
def test_wrong_options_are_refused(args, says):
    with pytest.raises(CommandError, match=says):
        run(*args)
    assert len(left()) == 7


def test_without_an_age_it_deletes_nothing(settings):
    settings.CELERY_RESULT_EXPIRES = None
    settings.DJCELERY_RETENTION = {}
    assert run()[0].startswith("Deleted 0 rows")
    assert run("--dry-run") == ["Nothing was deleted: this is a dry run."]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_between_two_batches_with_a_summary(number, status):
    before = signal.getsignal(number)
    deletes = []

    def interrupt(execute, sql, params, many, context):
        result = execute(sql, params, many, context)
        if sql.startswith("DELETE") and "date_done" in sql:
            deletes.append(sql)
            os.kill(os.getpid(), number)
        return result

    # The hidden row goes first.
    with connection.execute_wrapper(interrupt), pytest.raises(CommandError) as caught:
        run("--batch-rows", "1", "--older-than", "1h")
    assert caught.value.returncode == status
    assert str(caught.value).startswith(f"Interrupted by {signal.Signals(number).name}. Deleted 2 rows in ")
    assert len(deletes) == 1
    assert signal.getsignal(number) == before


def test_in_another_thread_signals_are_left_alone():
    seen = []

    def work():
        with results_progress.interruptible() as interruption:
            seen.append(bool(interruption))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_one_line_on_a_terminal(monkeypatch):
    monkeypatch.setattr(results_progress, "TERMINAL_S", 0)
    out = Terminal()
    call_command("celeryresults", "cleanup", "--batch-rows", "1", stdout=out)
    progress, _, summary = out.getvalue().rpartition("\r")
    assert "\n" not in progress
    assert "\r1 deleted; now hidden results" in progress
    assert sorted(line.split()[0] for line in summary.splitlines()) == ["1", "1", "1", "1", "2", "Deleted"]


def test_progress_is_a_line_now_and_then_elsewhere(monkeypatch):
    assert not any("now" in line for line in run())
    monkeypatch.setattr(results_progress, "LOG_S", 0)
    TaskMeta.objects.update(date_done=utils.now() - 20 * DAY)
    assert any(
        line.endswith("deleted; now results older than 1 day, 0:00:00 (CELERY_RESULT_EXPIRES)") for line in run()
    )

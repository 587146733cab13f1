"""The commands of ``docs/upgrading.rst``, as they stand there, on databases that the real django-celery wrote."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.integration.conftest import broker, migrated_database, programs
from tests.legacy.test_databases import COUNTS, WRITTEN
from tests.migrations import databases
from tests.migrations.test_adoption import assert_same_values
from tests.migrations.test_drift import NAMES
from tests.services import wait_until

__all__ = ("broker", "migrated_database", "programs")

PAGE = Path(__file__).parents[2] / "docs" / "upgrading.rst"
#: What each program of the page prints when it is ready.
PROGRAMS = {"celeryd": "[queues]", "celerybeat": "Starting...", "celerycam": "every 2.0 secs"}
#: Results that stay pickles: the report with a set in it, and the project's own class.
LEFT = 2
#: Without the project's modules, its failure with attributes stays, too.
LEFT_WITHOUT_MODULES = 3


def commands():
    """Return the words after ``manage.py`` of each command of the page, in order."""
    return [shlex.split(line)[2:] for line in re.findall(r"^ +(python manage\.py .+)$", PAGE.read_text(), re.MULTILINE)]


def test_the_page_has_the_commands_that_these_tests_know():
    assert [words[0] for words in commands()] == [
        "check", "migrate", "celeryd", "celerybeat", "celerycam", "celeryresults", "celeryresults", "shell", "shell",
        "migrate",
    ]  # fmt: skip


@pytest.fixture(params=WRITTEN)
def written(request, make_database, tmp_path):
    """Each of the databases, as it was written."""
    release, vendor = request.param.split("-")
    url = databases.legacy_file(tmp_path, release) if vendor == "sqlite" else None
    database = make_database(vendor, url)
    if url is None:
        database.load_dump(databases.DATA / f"django-celery-{release}.{vendor}.sql")
    database.name = request.param
    return database


@pytest.mark.long
def test_every_step_and_the_way_back_on_an_old_database(written):
    check, migrate, *_, dry_run, convert, delete, delete_groups, back = commands()
    before = written.contents()
    assert "no issues" in written.manage(*check)

    assert f"djcelery.{NAMES[-1]}... OK" in written.manage(*migrate)
    assert_same_values(before, written.contents())
    assert written.records() == NAMES

    # Both end with status 1, for some rows stay.
    assert "this is a dry run" in written.manage(*dry_run, check=False)
    assert_same_values(before, written.contents())
    assert "can't be converted." in written.manage(*convert, check=False)
    with (written.folder / "left.csv").open(newline="") as file:
        left = {row["id"] for row in csv.DictReader(file)}
    assert len(left) == LEFT_WITHOUT_MODULES

    written.manage(*delete)
    written.manage(*delete_groups)
    written.manage(*back)
    assert written.records() == NAMES[:1]
    after = written.contents()
    assert {row["task_id"] for row in after["celery_taskmeta"]} == left
    assert after["celery_tasksetmeta"] == []
    for table in set(before) - {"celery_taskmeta", "celery_tasksetmeta"}:
        assert_same_values({table: before[table]}, after)
        known = set(databases.LATER.get(table, ()))
        assert not after[table] or not known & after[table][0].keys()


@pytest.mark.long
@pytest.mark.integration
@pytest.mark.parametrize("release", ["2.5.5", "3.1.17"])
def test_every_step_with_the_programs_running(programs, release):
    """In a project with the settings of then; beat sends what is due, the worker runs it, the camera sees it."""
    shutil.copy(databases.DATA / f"django-celery-{release}.sqlite", programs.root / "db.sqlite3")
    programs.env["DJANGO_SETTINGS_MODULE"] = "legacyproj.adopted"
    old = {row[0] for row in programs.rows("SELECT task_id FROM celery_taskmeta")}
    assert len(old) == COUNTS[f"{release}-sqlite"][0]
    running = []
    for words in commands():
        if words[0] in PROGRAMS:
            running.append(programs.start(*words, ready=PROGRAMS[words[0]]))
            continue
        if words[0] == "celeryresults" and "--dry-run" in words:
            wait_for_all_three(programs, old)
        if words[0] == "shell" and running:
            # Step 1 of the way back.
            assert [program.stop() for program in running] == [0, 0, 0]
            running.clear()
        done = programs.run(*words)
        assert done.returncode == (words[0] == "celeryresults"), done.stdout + done.stderr
    kept = {row[0] for row in programs.rows("SELECT task_id FROM celery_taskmeta")}
    assert kept < old
    assert len(kept) == LEFT


def wait_for_all_three(programs, old):
    """Wait until beat has sent a task of its old row, a worker has stored its result, and the camera its state."""
    stored = "SELECT task_id FROM celery_taskmeta WHERE status = 'SUCCESS' AND content_type IS NOT NULL"
    wait_until(lambda: {row[0] for row in programs.rows(stored)} - old, 90, "the result of a periodic task")
    seen = (
        "SELECT s.task_id FROM djcelery_taskstate s JOIN celery_taskmeta m ON m.task_id = s.task_id WHERE s.state = ?"
    )
    wait_until(lambda: {row[0] for row in programs.rows(seen, "SUCCESS")} - old, 90, "the state of such a task")

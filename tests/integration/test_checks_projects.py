"""System checks on whole projects: nothing to say about those that are right, and what programs say at their start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "tests" / "project"
DEMO = ROOT / "examples" / "demoproject"
pytestmark = pytest.mark.integration

NOTHING = "System check identified no issues (0 silenced).\n"


def run(*line, folder, **env):
    """Run Python with *line* in *folder*; return its exit status, standard output and standard error."""
    names = ("DJANGO_SETTINGS_MODULE", "CELERY_LOADER", "CELERY_BROKER_URL", "DATABASE_URL", "BROKER_URL")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    clean |= {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "C_FORCE_ROOT": "1"}
    done = subprocess.run(
        [sys.executable, *line], cwd=folder, env={**clean, **env}, capture_output=True, text=True, timeout=180
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def plain(tmp_path):
    """What "startproject" makes, with djcelery installed; and a function that adds to its settings."""
    status, _, errors = run("-m", "django", "startproject", "plain", ".", folder=tmp_path)
    assert (status, errors) == (0, "")

    def add(text):
        with (tmp_path / "plain" / "settings.py").open("a") as settings:
            settings.write(f"\n{text}\n")

    add('INSTALLED_APPS += ["djcelery"]')
    return tmp_path, add


def test_a_plain_project_has_nothing_to_be_told(plain):
    folder, _ = plain
    assert run("manage.py", "check", folder=folder) == (0, NOTHING, "")
    status, _, errors = run("manage.py", "check", "--database", "default", folder=folder)
    assert (status, errors) == (0, "")


@pytest.mark.long
def test_a_project_by_the_quick_start_has_nothing_to_be_told(plain):
    folder, add = plain
    add('CELERY_BROKER_URL = "redis://127.0.0.1:6379/0"\nCELERY_RESULT_BACKEND = "djcelery-db"')
    (folder / "plain" / "celery.py").write_text(
        "from celery import Celery\n"
        'app = Celery("plain")\n'
        'app.config_from_object("django.conf:settings", namespace="CELERY")\n'
        "app.autodiscover_tasks()\n"
    )
    status, _, errors = run("manage.py", "check", folder=folder)
    assert status == 0
    assert "djcelery.I116" in errors
    (folder / "plain" / "__init__.py").write_text("from plain.celery import app as celery_app\n")
    assert run("manage.py", "check", folder=folder) == (0, NOTHING, "")
    deployed = run("manage.py", "check", "--deploy", "--tag", "djcelery", folder=folder)[2]
    assert "djcelery.W703" in deployed
    assert deployed.count("(djcelery.") == 1


@pytest.mark.long
@pytest.mark.parametrize("settings", ["legacyproj.settings", "legacyproj.adopted", "modernproj.settings"])
def test_the_projects_of_the_tests_have_nothing_to_be_told(settings, tmp_path):
    urls = {"DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}", "BROKER_URL": "redis://127.0.0.1:6379/9"}
    done = run("manage.py", "check", folder=PROJECT, DJANGO_SETTINGS_MODULE=settings, **urls)
    assert done == (0, NOTHING, "")


def test_the_example_has_nothing_to_be_told(tmp_path):
    assert run("manage.py", "check", folder=DEMO, DEMO_DIR=str(tmp_path)) == (0, NOTHING, "")


@pytest.mark.long
def test_checks_import_nothing_that_an_app_would_not_import(plain):
    folder, _ = plain
    code = (
        "import sys, django; django.setup(); before = set(sys.modules); "
        "from django.core.checks import run_checks; run_checks(tags=['djcelery']); "
        "print([name for name in set(sys.modules) - before if name.startswith(('celery.', 'kombu.', 'djcelery.'))])"
    )
    status, out, errors = run("-c", code, folder=folder, DJANGO_SETTINGS_MODULE="plain.settings")
    assert (status, out, errors) == (0, "[]\n", "")


@pytest.mark.long
def test_a_program_names_what_is_missing_when_it_starts(plain):
    folder, add = plain
    # An error that only a program's start finds.
    add('import djcelery\ndjcelery.setup_loader()\nBROKER_URL = "filesystem://"\nCELERY_TASK_SERIALIZER = "json"')
    status, _, errors = run("manage.py", "celerybeat", folder=folder)
    assert status == 1
    assert "manage.py migrate djcelery" in errors
    for id_ in ("E504", "W117", "W704"):
        assert f"(djcelery.{id_})" in errors
    status, _, errors = run("manage.py", "migrate", "-v", "0", folder=folder)
    assert (status, "W704" in errors) == (0, False)
    status, _, errors = run("manage.py", "celerybeat", folder=folder)
    assert (status, "W704" in errors) == (1, False)


@pytest.mark.long
@pytest.mark.parametrize("where", ["127.0.0.1:1", "10.255.255.1:5432"])
def test_a_database_that_is_away_keeps_no_program_from_starting(plain, where):
    pytest.importorskip("psycopg")
    # Without an app of its own, and so under djcelery's loader, it is still no upgraded project.
    folder, add = plain
    host, _, port = where.partition(":")
    add(
        f'DATABASES = {{"default": {{"ENGINE": "django.db.backends.postgresql", "NAME": "x", "HOST": "{host}", '
        f'"PORT": {port}}}}}\nCELERY_BROKER_URL = "redis://127.0.0.1:6379/9"\nDEBUG = False\n'
        'CELERY_BEAT_SCHEDULER = "djcelery:Missing"'
    )
    status, _, errors = run("manage.py", "celerybeat", folder=folder)
    assert status == 1
    assert errors.count("(djcelery.") == 1
    assert "Traceback" not in errors

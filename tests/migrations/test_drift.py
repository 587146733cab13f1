"""Models and migrations say the same, whatever the project's settings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.apps import apps
from django.conf import settings as django_settings
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState
from django.utils import translation

import djcelery.migrations

FOLDER = Path(djcelery.migrations.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("[0-9]*.py"))


def changes():
    """Return what makemigrations would write for djcelery."""
    loader = MigrationLoader(None)
    detector = MigrationAutodetector(loader.project_state(), ProjectState.from_apps(apps))
    return detector.changes(graph=loader.graph).get("djcelery", [])


@pytest.mark.parametrize("language", ["en", "es", "de"])
@pytest.mark.parametrize("use_tz", [True, False])
def test_no_language_or_time_zone_setting_makes_a_migration(settings, language, use_tz):
    settings.LANGUAGE_CODE, settings.USE_TZ = language, use_tz
    # As the command does.
    with translation.override(None):
        assert changes() == []


@pytest.mark.parametrize("auto_field", ["django.db.models.AutoField", "django.db.models.BigAutoField"])
@pytest.mark.parametrize("language", ["en", "es"])
def test_makemigrations_finds_nothing_to_do(tmp_path, auto_field, language):
    (tmp_path / "drift_settings.py").write_text(
        "from tests.settings import *\n"
        f"DEFAULT_AUTO_FIELD = {auto_field!r}\nLANGUAGE_CODE = {language!r}\nUSE_TZ = {language == 'en'}\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "django", "makemigrations", "--check", "--dry-run", "djcelery"],
        # The database is asked for nothing but its history, and the suite's own has a name only while it runs.
        env={**os.environ, "PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "drift_settings", "DATABASE_URL": "sqlite"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def test_migrations_are_numbered_without_gaps_and_named_by_what_they_do():
    assert [name[:5] for name in NAMES] == [f"{number:04}_" for number in range(1, len(NAMES) + 1)]
    assert [name for name in NAMES if "_auto_" in name or not re.fullmatch(r"\d{4}_[a-z][a-z0-9_]+", name)] == []


def test_released_names_never_change():
    assert NAMES[:4] == ["0001_initial", "0002_legacy_columns", "0003_result_content_type", "0004_legacy_indexes"]


def test_no_key_depends_on_a_setting():
    keys = {model.__name__: type(model._meta.pk).__name__ for model in apps.get_app_config("djcelery").get_models()}
    assert django_settings.DEFAULT_AUTO_FIELD.endswith("BigAutoField")
    # The tables that django-celery had keep its keys; those that came later say theirs themselves.
    assert {name for name, kind in keys.items() if kind == "BigAutoField"} == {
        "Chord",
        "ChordPart",
        "MalformedEvent",
        "PeriodicRun",
        "ScheduleChange",
        "TaskHistory",
    }

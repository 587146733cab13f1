"""Registration of djcelery with Django and Celery, and nothing but registration."""

import os

from celery import signals as celery_signals
from celery._state import get_current_app
from celery.app.backends import BACKEND_ALIASES
from django.apps import AppConfig
from django.core import checks as django_checks
from django.db.models import signals

from djcelery import LOADER


class DjceleryConfig(AppConfig):
    """The Django app ``djcelery``."""

    name = "djcelery"
    # Legacy tables have 32-bit keys; the project's DEFAULT_AUTO_FIELD must not alter them.
    default_auto_field = "django.db.models.AutoField"

    def ready(self):
        """Name the result backends, connect receivers and register checks. Called once, by ``django.setup()``."""
        from djcelery import backends, checks, db, models
        from djcelery.backends import columns, publish
        from djcelery.checks import telling
        from djcelery.migrations import _adopt

        for alias, path in backends.ALIASES.items():
            # The names that an installed django-celery-results has registered are its own.
            BACKEND_ALIASES.setdefault(alias, path)
        celery_signals.celeryd_init.connect(db.use_worker_fixup)
        celery_signals.worker_process_init.connect(db.after_fork)
        celery_signals.beat_embedded_init.connect(db.after_fork)
        celery_signals.beat_init.connect(telling.tell_beat)
        celery_signals.before_task_publish.connect(publish.note_sent)
        celery_signals.after_task_publish.connect(publish.store_published)
        celery_signals.task_prerun.connect(columns.note_start)
        signals.pre_migrate.connect(_adopt.before_migrate, sender=self)
        signals.post_migrate.connect(models.note_migrated, sender=self)
        for kind in (models.PeriodicTask, *models.TIMES):
            signals.post_save.connect(models.noted_raw_save, sender=kind)
        for check in (*checks.ALL, *checks.START):
            django_checks.register(check, checks.TAG)
        for check in checks.DEPLOY:
            django_checks.register(check, checks.TAG, deploy=True)
        for check in checks.DATABASE:
            django_checks.register(check, checks.TAG, django_checks.Tags.database)
        if os.environ.get("CELERY_LOADER") == LOADER:
            # Installs the Django fix-up now, which makes the app the default one in every thread.
            _ = get_current_app().loader

"""Starting Celery under djcelery's loader."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import warnings

import pytest
from celery import Celery, shared_task
from celery.fixups.django import DjangoFixup

import djcelery
from djcelery import loaders
from tests.checking import said


def run_python(code, **env):
    """Run *code* in a new interpreter with Django's test settings; return what it prints."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_importing_djcelery_imports_neither_django_nor_celery():
    out = run_python("import djcelery, sys; print({m.partition('.')[0] for m in sys.modules} & {'django', 'celery'})")
    assert out == "set()"


def test_setup_loader_keeps_a_loader_that_is_named_already(monkeypatch):
    monkeypatch.setenv("CELERY_LOADER", "other:Loader")
    djcelery.setup_loader()
    assert os.environ["CELERY_LOADER"] == "other:Loader"


def test_the_default_app_reads_django_settings_with_the_namespace():
    out = run_python(
        """
        import djcelery; djcelery.setup_loader()
        import django; django.setup()
        from djcelery.app import app
        from celery import current_app
        print(app is current_app._get_current_object(), djcelery.celery.main, app.namespace)
        print(app.conf.result_backend, type(app.backend).__module__, app.conf.timezone, app.conf.task_serializer)
        """
    )
    assert out.splitlines() == [
        "True default CELERY",
        "database djcelery.backends.database Europe/Brussels json",
    ]


@pytest.mark.parametrize("maker", ["celery.current_app._get_current_object()", "celery.Celery('proj')"])
def test_delay_on_commit_works_on_tasks_finalised_before_anything_read_the_loader(maker):
    out = run_python(
        f"""
        import djcelery; djcelery.setup_loader()
        import celery
        app = {maker}
        @celery.shared_task
        def early(): pass
        @app.task
        def own(): pass
        assert 'loader' not in app.__dict__
        app.finalize()
        import django; django.setup()
        print(callable(early.delay_on_commit), callable(own.delay_on_commit), sum(f is not None for f in app._fixups))
        """
    )
    assert out == "True True 1"


def test_autodiscovery_without_arguments_finds_the_tasks_of_installed_apps():
    out = run_python(
        """
        import sys; sys.path.insert(0, 'tests/project')
        from django.conf import settings
        import djcelery; djcelery.setup_loader()
        import celery
        app = celery.Celery('proj')
        app.autodiscover_tasks()
        settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, 'shop']
        app.loader.import_default_modules()
        print('shop.tasks.add' in app.tasks)
        """
    )
    assert out == "True"


def test_a_users_own_app_becomes_the_default_of_other_threads():
    out = run_python(
        """
        import djcelery; djcelery.setup_loader()
        import celery, threading
        app = celery.Celery('proj')
        import django; django.setup()
        seen = []
        thread = threading.Thread(target=lambda: seen.append(celery.current_app.main)); thread.start(); thread.join()
        print(seen)
        """
    )
    assert out == "['proj']"


def test_two_apps_in_one_process_have_a_loader_and_a_fixup_each():
    first, second = (Celery(name, loader=djcelery.LOADER, set_as_current=False) for name in ("first", "second"))
    assert first.loader is not second.loader
    for app in (first, second):
        (fixup,) = [f for f in app._fixups if isinstance(f, DjangoFixup)]
        assert fixup.app is app


def test_the_modern_way_needs_no_loader():
    out = run_python(
        """
        from celery import Celery
        app = Celery('proj')
        app.config_from_object('django.conf:settings', namespace='CELERY')
        import django; django.setup()
        from djcelery.app import project_app
        print(project_app() is app, type(app.loader).__name__, app.conf.task_serializer)
        """,
        CELERY_RESULT_BACKEND="djcelery-db",
    )
    assert out == "True AppLoader json"


def test_entry_points_name_our_backends_under_any_app():
    out = run_python(
        """
        from celery import Celery
        from celery.app.backends import by_name
        import django; django.setup()
        print(by_name('djcelery-db').__module__, by_name('djcelery-cache').__module__)
        """
    )
    assert out == "djcelery.backends.database djcelery.backends.cache"


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Three packages: one with tasks, one whose tasks are broken, one without any."""
    for name, text in {
        "pkg_good": "answer = 42",
        "pkg_broken": "import nothing_of_this_name",
        "pkg_none": None,
    }.items():
        package = tmp_path / name
        package.mkdir()
        (package / "__init__.py").touch()
        if text:
            (package / "tasks.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield ["pkg_broken", "pkg_none", "pkg_good"]
    for name in [m for m in sys.modules if m.startswith("pkg_")]:
        del sys.modules[name]


def test_a_broken_task_module_is_reported_and_does_not_hide_the_others(packages, caplog):
    app = Celery("x", loader=djcelery.LOADER, set_as_current=False)
    app.loader.autodiscover_tasks(packages)
    assert app.loader.task_modules == {"pkg_good.tasks"}
    (record,) = [r for r in said(caplog) if r.levelno == logging.ERROR]
    assert "pkg_broken.tasks" in record.getMessage()
    assert record.exc_info[1].name == "nothing_of_this_name"
    assert list(app.loader.broken_modules) == ["pkg_broken.tasks"]


def test_find_related_module_tells_missing_from_broken(packages):
    assert loaders.find_related_module("pkg_good", "tasks").answer == 42
    assert loaders.find_related_module("pkg_none", "tasks") is None
    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
        loaders.find_related_module("pkg_broken", "tasks")
    with pytest.warns(UserWarning, match="Autodiscover: Error importing no_such_package.tasks"):
        assert loaders.find_related_module("no_such_package", "tasks") is None


def test_autodiscover_is_not_entered_twice(monkeypatch):
    seen = []
    monkeypatch.setattr(loaders, "find_related_module", lambda *args: seen.append(loaders.autodiscover()))
    assert loaders.autodiscover() == []
    assert set(seen) == {None}


def test_debug_is_warned_of_once_a_worker_is_ready(settings):
    loader = Celery("x", loader=djcelery.LOADER, set_as_current=False).loader
    settings.DEBUG = True
    with pytest.warns(UserWarning, match="settings.DEBUG"):
        loader.warn_if_debug()
    settings.DEBUG = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader.warn_if_debug()


def test_legacy_backend_names_mean_our_backends(celery_app, settings):
    settings.CELERY_RESULT_BACKEND = "cache"
    assert type(celery_app.backend).__module__ == "djcelery.backends.cache"


def test_shared_tasks_have_delay_on_commit(celery_app):
    @shared_task(name="tests.late")
    def late():
        """Do nothing."""

    assert callable(late.delay_on_commit)

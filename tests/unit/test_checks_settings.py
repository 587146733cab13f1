"""System checks of settings and of the Celery app: each fires, names what to do, and is silent otherwise."""

from __future__ import annotations

import os
import sys
import types

import pytest
from celery import _state
from django.core.checks import Error, Info, Warning
from django.test import override_settings

import djcelery
from djcelery import checks
from djcelery.checks import celeryapp, common, settings
from djcelery.conf import DJANGO_OWN
from tests.checking import only

pytestmark = pytest.mark.usefixtures("no_app")


# -- pickle ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CELERY_ACCEPT_CONTENT", ["json", "pickle"]),
        ("CELERY_ACCEPT_CONTENT", ("application/x-python-serialize",)),
        ("CELERY_RESULT_ACCEPT_CONTENT", {"pickle"}),
        ("CELERY_EVENT_SERIALIZER", "pickle"),
    ],
)
def test_pickle_is_named_wherever_it_is_accepted(name, value):
    with override_settings(**{name: value}):
        assert name in only(settings.accepts_pickle(), "W107", Warning).msg


@pytest.mark.parametrize("value", [["json"], ["json", "yaml", "msgpack"], [], None, 7])
def test_other_serializers_are_no_matter_of_pickle(value):
    with override_settings(CELERY_ACCEPT_CONTENT=value):
        assert settings.accepts_pickle() == []


def test_pickle_that_is_only_written_is_a_matter_of_those_who_refuse_it():
    with override_settings(CELERY_TASK_SERIALIZER="pickle", CELERY_RESULT_SERIALIZER="pickle"):
        assert settings.accepts_pickle() == []
        only(settings.refuses_own_messages(), "W108", Warning)


def test_pickle_that_was_given_to_the_app_itself_is_seen(make_app):
    make_app(source=None).conf.accept_content = ["pickle"]
    assert "app.conf.accept_content" in only(settings.accepts_pickle(), "W107", Warning).msg


def test_settings_that_celery_does_not_read_are_no_matter_of_pickle(make_app):
    make_app(source="celeryconfig")
    with override_settings(CELERY_ACCEPT_CONTENT=["pickle"]):
        assert settings.accepts_pickle() == []


def test_tasks_in_a_format_that_workers_refuse_are_a_warning():
    with override_settings(CELERY_TASK_SERIALIZER="yaml", CELERY_ACCEPT_CONTENT=["json"]):
        assert "yaml" in only(settings.refuses_own_messages(), "W108", Warning).msg


@pytest.mark.parametrize(
    ("written", "accepted"),
    [("json", ["application/json"]), ("yaml", ["json", "yaml"]), ("json", None), ("ours", ["json"]), (None, ["json"])],
)
def test_tasks_in_a_format_that_is_accepted_or_unknown_are_fine(written, accepted):
    with override_settings(CELERY_TASK_SERIALIZER=written, CELERY_ACCEPT_CONTENT=accepted):
        assert settings.refuses_own_messages() == []


def test_the_loader_is_known_by_both_spellings(monkeypatch):
    for name in ("djcelery.loaders.DjangoLoader", "djcelery.loaders:DjangoLoader"):
        monkeypatch.setenv("CELERY_LOADER", name)
        assert common.uses_loader()
    monkeypatch.setenv("CELERY_LOADER", "default")
    assert not common.uses_loader()


# -- time zones ------------------------------------------------------------------------------------


@pytest.fixture
def no_use_tz(monkeypatch):
    """The project's settings don't say USE_TZ."""
    from django.conf import settings as django_settings

    explicit = django_settings._wrapped._explicit_settings
    monkeypatch.setattr(django_settings._wrapped, "_explicit_settings", explicit - {"USE_TZ"})


def test_an_upgraded_project_without_use_tz_is_warned(under_loader, no_use_tz):
    assert "USE_TZ" in only(settings.time_zone_support(), "W109", Warning).msg


def test_a_new_project_without_use_tz_is_not_warned(no_use_tz):
    assert settings.time_zone_support() == []


def test_an_upgraded_project_that_says_use_tz_is_not_warned(under_loader):
    assert settings.time_zone_support() == []


@pytest.mark.parametrize("zone", ["Europe/Brusels", "../../etc/passwd", "\0"])
def test_a_time_zone_that_nobody_knows_is_an_error(zone):
    with override_settings(CELERY_TIMEZONE=zone):
        only(settings.unknown_time_zone(), "E110", Error)


@pytest.mark.parametrize("zone", ["Europe/Brussels", "UTC", None, "", object()])
def test_a_known_time_zone_is_fine(zone):
    with override_settings(CELERY_TIMEZONE=zone):
        assert settings.unknown_time_zone() == []


# -- names -----------------------------------------------------------------------------------------


def test_a_name_that_begins_like_ours_and_is_none_is_named_with_what_was_meant():
    with override_settings(DJCELERY_RETENTIONS={}):
        assert "DJCELERY_RETENTION?" in only(settings.unknown_own_names(), "W111", Warning).hint
    with override_settings(CELERYCAM_SOMETHING=1):
        assert "CELERYCAM_SOMETHING" in only(settings.unknown_own_names(), "W111", Warning).msg


def test_all_of_our_own_names_are_known():
    from djcelery.conf import Conf

    with override_settings(**{name: setting.default for name, setting in Conf.all().items()}):
        assert settings.unknown_own_names() == []


def test_a_name_that_is_almost_one_of_celerys_is_an_info():
    with override_settings(CELERY_TASK_ALWAYS_EAGAR=True):
        assert "CELERY_TASK_ALWAYS_EAGER?" in only(settings.misspelt(), "I112", Info).hint


@pytest.mark.parametrize("name", ["CELERY_SHOP_QUEUE", "CELERY_APP", "BROKER_NAME", "CELERY_ENABLED"])
def test_a_name_of_the_projects_own_is_not_taken_for_a_slip(name):
    with override_settings(**{name: 1}):
        assert settings.misspelt() == []


def test_no_name_of_celery_is_taken_for_a_slip():
    # Django itself complains of some of its own.
    names = common.known_settings() - DJANGO_OWN
    assert {"CELERY_BROKER_URL", "BROKER_URL", "CELERYD_CONCURRENCY", "CELERY_RESULT_BACKEND"} <= names
    with override_settings(**dict.fromkeys(names, None)):
        assert settings.misspelt() == []


@pytest.mark.parametrize("name", ["DJANGO_CELERY_BEAT_TZ_AWARE", "DJANGO_CELERY_RESULTS"])
def test_a_setting_of_the_packages_before_is_named_unless_they_are_installed(name, monkeypatch):
    with override_settings(**{name: 1}):
        only(settings.peers_settings(), "W113", Warning)
        monkeypatch.setattr(settings.apps, "is_installed", lambda package: True)
        assert settings.peers_settings() == []


# -- the app ---------------------------------------------------------------------------------------


def test_an_app_without_a_namespace_does_not_read_names_with_the_prefix(make_app):
    make_app(namespace=None)
    with override_settings(CELERY_BROKER_URL="redis://", CELERY_TASK_SERIALIZER="json", BROKER_URL="redis://"):
        message = only(celeryapp.no_namespace(), "W114", Warning)
    assert "CELERY_BROKER_URL" in message.msg
    # Legacy names are read, also those that are spelled like today's.
    assert "CELERY_TASK_SERIALIZER" not in message.msg


@pytest.mark.parametrize("key", ["broker_url", "task_serializer"])
def test_what_the_check_of_namespaces_says_is_what_celery_does(make_app, key):
    app = make_app(namespace=None)
    with override_settings(**{f"CELERY_{key.upper()}": "sample"}):
        named = bool(celeryapp.no_namespace())
        assert named is (getattr(app.conf, key) != "sample")


def test_an_app_with_a_namespace_or_under_the_loader_reads_them(make_app, monkeypatch):
    with override_settings(CELERY_BROKER_URL="redis://"):
        assert celeryapp.no_namespace() == []
        make_app()
        assert celeryapp.no_namespace() == []
        monkeypatch.setenv("CELERY_LOADER", djcelery.LOADER)
        make_app(namespace=None)
        assert celeryapp.no_namespace() == []


def test_two_apps_of_which_threads_get_one_each_are_a_warning(make_app, monkeypatch):
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.settings")
    make_app("first")
    assert celeryapp.two_apps() == []
    make_app("second")
    message = only(celeryapp.two_apps(), "W115", Warning)
    assert "'first'" in message.msg
    assert "'second'" in message.msg


def test_a_second_app_that_is_not_made_current_is_fine(make_app):
    make_app("first")
    make_app("second", set_as_current=False)
    assert celeryapp.two_apps() == []


def test_an_app_that_was_made_after_celerys_default_one_is_a_warning(make_app):
    assert _state.get_current_app().main == "default"
    make_app("late")
    assert "'default'" in only(celeryapp.two_apps(), "W115", Warning).msg


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A package with settings and an app that nothing has imported."""
    folder = tmp_path / "lateproj"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "celery.py").write_text("raise AssertionError('a check must not import this')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "lateproj.settings")
    __import__("lateproj")
    yield folder
    sys.modules.pop("lateproj", None)


def test_an_app_that_nothing_imports_is_an_info(project):
    message = only(celeryapp.app_not_imported(), "I116", Info)
    assert "lateproj/__init__.py" in message.hint
    assert _state.get_current_app().main == "default"
    only(celeryapp.app_not_imported(), "I116", Info)


def test_an_app_that_is_imported_or_not_needed_is_fine(project, make_app, monkeypatch):
    monkeypatch.setenv("CELERY_LOADER", djcelery.LOADER)
    assert celeryapp.app_not_imported() == []
    monkeypatch.delenv("CELERY_LOADER")
    monkeypatch.setitem(sys.modules, "lateproj.celery", types.ModuleType("lateproj.celery"))
    assert celeryapp.app_not_imported() == []
    monkeypatch.delitem(sys.modules, "lateproj.celery")
    make_app()
    assert celeryapp.app_not_imported() == []


@pytest.mark.parametrize("module", ["", "settings", "lateproj.settings.production", "nowhere.settings"])
def test_an_app_is_looked_for_in_every_package_around_the_settings(project, monkeypatch, module):
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", module)
    assert bool(celeryapp.app_not_imported()) is module.startswith("lateproj")


def test_a_project_without_such_a_module_is_fine(project):
    (project / "celery.py").unlink()
    assert celeryapp.app_not_imported() == []


# -- programs that start ---------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["celeryd", "celerybeat", "celerycam", "celeryev"])
def test_a_program_that_starts_with_debug_is_warned(program):
    with override_settings(DEBUG=True), checks.starting(program, {}):
        assert program in only(celeryapp.debug_is_on(), "W117", Warning).msg


def test_debug_is_no_matter_of_other_commands_nor_of_rehearsals():
    with override_settings(DEBUG=True):
        assert celeryapp.debug_is_on() == []
        with checks.starting("celerybeat", {"dry_run": True}):
            assert celeryapp.debug_is_on() == []
    with checks.starting("celerybeat", {}):
        assert celeryapp.debug_is_on() == []


def test_a_worker_under_the_loader_is_told_of_debug_once_by_the_loader(under_loader):
    with override_settings(DEBUG=True), checks.starting("celeryd", {}):
        assert celeryapp.debug_is_on() == []


@pytest.mark.parametrize("name", ["CELERY_TASK_ALWAYS_EAGER", "CELERY_ALWAYS_EAGER"])
def test_eager_tasks_are_a_matter_of_deployment_and_of_a_worker_that_starts(name, under_loader):
    with override_settings(**{name: True}):
        assert name in only(celeryapp.always_eager(), "W118", Warning).msg
        assert celeryapp.always_eager in checks.DEPLOY
        assert celeryapp.eager_program() == []
        with checks.starting("celeryd", {}):
            only(celeryapp.eager_program(), "W118", Warning)
    with override_settings(**{name: False}):
        assert celeryapp.always_eager() == []


# -- what Celery takes -----------------------------------------------------------------------------


def test_what_the_checks_take_is_what_celery_takes(make_app, monkeypatch):
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    app = make_app()
    cases = [
        {"CELERY_BROKER_URL": "redis://a"},
        {"CELERY_BROKER_URL": "redis://a", "BROKER_URL": "redis://b"},
        {"BROKER_URL": "redis://b"},
    ]
    for case in cases:
        with override_settings(**{"BROKER_URL": None, **case}):
            app = make_app()
            taken = common.given("broker_url")
            assert (taken.value if taken else None) == app.conf.broker_url
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://c")
    assert common.given("broker_url").value == app.conf.broker_url == "redis://c"


@pytest.mark.parametrize("values", [{}, {"CELERY_BROKER_URL": "redis://settings"}])
@pytest.mark.parametrize("namespace", ["CELERY", None])
def test_what_was_given_to_the_app_is_taken_where_celery_takes_it(make_app, monkeypatch, values, namespace):
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    with override_settings(**values):
        app = make_app(broker="redis://given", namespace=namespace)
        before = common.given("broker_url").value
        assert not app.configured
        assert before == app.conf.broker_url == common.given("broker_url").value
        app.conf.task_always_eager = True
        assert common.given("task_always_eager").value is True


def test_the_loader_always_names_a_result_backend(under_loader):
    assert common.given("result_backend").value == "database"
    with override_settings(CELERY_CACHE_BACKEND="django-cache"):
        assert common.given("result_backend").value == "cache"


def test_no_check_makes_an_app_or_raises(monkeypatch):
    monkeypatch.setitem(os.environ, "DJANGO_SETTINGS_MODULE", "tests.settings")
    for check in (*checks.ALL, *checks.START, *checks.DEPLOY):
        assert isinstance(check(), list), check
    assert common.known_app() is None


def test_a_project_that_never_asked_for_the_loader_is_no_upgraded_one(monkeypatch, no_use_tz):
    from djcelery.app import project_app

    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "settings")
    with override_settings():
        from django.conf import settings as django_settings

        del django_settings.CELERY_TASK_SERIALIZER
        del django_settings.CELERY_ACCEPT_CONTENT
        project_app()
        assert common.uses_loader()
        assert not common.is_upgraded()
        assert settings.time_zone_support() == []

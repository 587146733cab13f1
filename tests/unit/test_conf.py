"""Django's settings as Celery's configuration, and djcelery's own settings."""

from __future__ import annotations

import ast
import re
import socket
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from celery import Celery
from django.core.checks import run_checks
from django.test import override_settings
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext_lazy

import djcelery
from djcelery import ages, checks, parsers
from djcelery import conf as configuration
from djcelery.conf import conf
from djcelery.exceptions import SettingError
from tests.unit.legacy_settings import OLDER, OTHERS, TRANSLATED

PACKAGE = Path(djcelery.__file__).parent


def app_conf():
    """The configuration of a new app under djcelery's loader."""
    return Celery("conf", loader=djcelery.LOADER, set_as_current=False, fixups=[]).conf


def sample(new_name):
    """A value of the right type that is not the default of *new_name*."""
    from celery.app.defaults import DEFAULTS

    default = DEFAULTS[new_name]
    if isinstance(default, bool):
        return not default
    return {int: 7, float: 7.5, tuple: ("sample",), list: ["sample"], dict: {"a": 1}}.get(type(default), "sample")


@pytest.mark.parametrize(("old", "new"), TRANSLATED.items())
def test_every_legacy_name_that_celery_translates_takes_effect(old, new):
    value = sample(new)
    with override_settings(**{old: value}):
        assert app_conf()[new] == value


def test_enable_utc_under_its_legacy_name_takes_effect():
    with override_settings(CELERY_ENABLE_UTC=False):
        assert app_conf().enable_utc is False


RENAMED_VALUES = {name: "sample" for name in configuration.RENAMED}


@pytest.mark.parametrize("old", configuration.RENAMED)
def test_names_that_only_djcelery_translates_take_effect_under_its_loader(old):
    new = configuration.RENAMED[old].removeprefix("CELERY_").lower()
    with override_settings(**{old: "sample"}):
        assert app_conf()[new] == "sample"


@pytest.mark.parametrize("old", configuration.RENAMED)
def test_names_that_only_djcelery_translates_are_named_by_a_check_without_its_loader(old, monkeypatch):
    monkeypatch.delenv("CELERY_LOADER", raising=False)
    with override_settings(**{old: "sample"}):
        (found,) = [message for message in checks.renamed() if message.msg.split()[-1] == f"{old}."]
    assert configuration.RENAMED[old] in found.hint


@pytest.mark.parametrize(("version", "named"), [((5, 6, 3), True), ((5, 7, 0), False)])
def test_legacy_names_that_an_older_celery_ignores_are_named_by_a_check(monkeypatch, celery_app, version, named):
    monkeypatch.delenv("CELERY_LOADER", raising=False)
    monkeypatch.setattr("celery.VERSION", version)
    assert celery_app.loader
    with override_settings(CELERYD_CONCURRENCY=3):
        found = [message for message in checks.renamed() if "CELERYD_CONCURRENCY" in message.msg]
    assert bool(found) is named


@pytest.mark.parametrize("name", configuration.REMOVED)
def test_a_setting_without_effect_is_named_by_a_check(name):
    with override_settings(**{name: 1}):
        (found,) = checks.without_effect()
    assert found.id == "djcelery.W103"
    assert name in found.msg
    assert found.hint == configuration.REMOVED[name]


@pytest.mark.parametrize("name", [*OTHERS, *OLDER])
def test_no_legacy_name_is_swallowed_silently(name):
    known = (
        name in configuration.RENAMED
        or name in configuration.REMOVED
        or name in configuration.COMMAND_DEFAULTS
        or name in configuration.DJANGO_OWN
        or name == "CELERY_ENABLE_UTC"
    )
    assert known, f"{name} neither works nor is named by a check"


def test_a_modern_name_wins_over_nothing_and_is_read():
    with override_settings(CELERY_WORKER_CONCURRENCY=3):
        assert app_conf().worker_concurrency == 3


def test_two_spellings_with_different_values_are_an_error_that_names_both():
    with override_settings(CELERYD_CONCURRENCY=2, CELERY_WORKER_CONCURRENCY=4):
        (found,) = checks.two_spellings()
    assert found.id == "djcelery.E102"
    assert "CELERYD_CONCURRENCY" in found.msg
    assert "CELERY_WORKER_CONCURRENCY" in found.msg


def test_two_spellings_never_print_a_password():
    with override_settings(BROKER_PASSWORD="hunter2", CELERY_BROKER_PASSWORD="hunter3"):
        (found,) = checks.two_spellings()
    assert "hunter" not in str(found)


def test_two_spellings_with_the_same_value_are_fine():
    with override_settings(CELERYD_CONCURRENCY=2, CELERY_WORKER_CONCURRENCY=2):
        assert checks.two_spellings() == []


def test_two_spellings_that_only_djcelery_translates_are_seen_too():
    with override_settings(CELERYD_ETA_SCHEDULER="a:B", CELERYD_TIMER="c:D"):
        (found,) = checks.two_spellings()
    assert "CELERYD_ETA_SCHEDULER" in found.msg
    assert "CELERYD_TIMER" in found.msg


def test_the_result_backend_is_the_database_unless_another_is_named():
    assert app_conf().result_backend == "database"
    with override_settings(CELERY_RESULT_BACKEND="cache"):
        assert app_conf().result_backend == "cache"
    with override_settings(CELERY_BACKEND="redis://"):
        assert app_conf().result_backend == "redis://"


def test_django_settings_are_never_written():
    from django.conf import settings

    before = set(dir(settings))
    app_conf().update(result_backend="x")
    assert not hasattr(settings, "CELERY_RESULT_BACKEND")
    assert set(dir(settings)) == before


def test_settings_are_looked_up_on_every_access():
    app = app_conf()
    assert app.get("CELERY_DB_REUSE_MAX") is None
    with override_settings(CELERY_DB_REUSE_MAX=3):
        assert app.get("CELERY_DB_REUSE_MAX") == 3


def test_a_broken_own_setting_is_an_error_that_says_what_to_write():
    with override_settings(CELERYCAM_EXPIRE_ERROR="3 days"):
        (found,) = checks.own_settings()
        with pytest.raises(SettingError, match="CELERYCAM_EXPIRE_ERROR = '3 days': use a timedelta"):
            _ = conf.CELERYCAM_EXPIRE_ERROR
    assert found.id == "djcelery.E101"


@pytest.mark.parametrize(("raw", "value"), [(None, None), (60, timedelta(minutes=1)), (timedelta(1), timedelta(1))])
def test_ages_are_timedeltas_seconds_or_never(raw, value):
    with override_settings(CELERYCAM_EXPIRE_SUCCESS=raw):
        assert value == conf.CELERYCAM_EXPIRE_SUCCESS


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("CELERYCAM_EXPIRE_SUCCESS", True),
        ("CELERYCAM_EXPIRE_PENDING", "never"),
        ("CELERY_DB_REUSE_MAX", -1),
        ("CELERY_DB_REUSE_MAX", "5"),
        ("DJCELERY_CAMERA_ENABLE_EVENTS", "yes"),
        ("DJCELERY_CAMERA_MAX_ROWS", 0),
        ("DJCELERY_CAMERA_MAX_ROWS", "1000"),
        ("DJCELERY_CAMERA_QUEUE_TTL_S", 0),
        ("DJCELERY_HISTORY_MINUTES", "a week"),
        ("DJCELERY_KEEP_RESULT_CONNECTION", "yes"),
        ("DJCELERY_LOST_AFTER", True),
        ("DJCELERY_METRICS_TOKEN", 12345),
        ("DJCELERY_UNPICKLE_ALLOW", "shop.tasks"),
        ("DJCELERY_UNPICKLE_ALLOW", ["shop tasks"]),
    ],
)
def test_wrong_values_are_refused(name, wrong):
    with override_settings(**{name: wrong}), pytest.raises(SettingError, match=name):
        getattr(conf, name)


def test_every_own_setting_has_a_default_that_parses():
    assert len(configuration.Conf.all()) >= 6
    for name, setting in configuration.Conf.all().items():
        getattr(conf, name)
        assert setting.__doc__.endswith(".")


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [(name, value, value) for names, gone in configuration.GONE_VALUES.items() for name in names for value in gone]
    + [("BROKER_URL", "django://user:hunter2@host/", "django"), ("BROKER_TRANSPORT", "AMQPLIB", "AMQPLIB")],
)
def test_a_broker_or_backend_that_is_gone_is_an_error_that_says_what_to_write(name, value, kind):
    with override_settings(**{name: value}):
        found = [message for message in checks.gone_values() if message.msg.startswith(f"{name} ")]
    assert [message.id for message in found] == ["djcelery.E106"]
    assert repr(kind) in found[0].msg
    assert found[0].hint
    assert "hunter2" not in str(found[0])


@pytest.mark.parametrize("value", ["amqp://guest@host//", "redis://host", "database", "cache", None, "rpc://"])
def test_brokers_and_backends_of_today_are_no_error(value):
    with override_settings(BROKER_URL=value, CELERY_RESULT_BACKEND=value if value != "amqp://guest@host//" else None):
        assert checks.gone_values() == []


def test_queued_pickles_of_the_old_release_are_warned_of(monkeypatch):
    monkeypatch.setenv("CELERY_LOADER", djcelery.LOADER)
    from django.conf import settings

    with override_settings():
        del settings.CELERY_TASK_SERIALIZER
        del settings.CELERY_ACCEPT_CONTENT
        (found,) = checks.pickle_was_default()
        assert found.id == "djcelery.W105"
        with override_settings(CELERY_ACCEPT_CONTENT=["json", "pickle"]):
            assert checks.pickle_was_default() == []


def test_a_new_project_is_not_asked_about_pickles(monkeypatch):
    monkeypatch.delenv("CELERY_LOADER", raising=False)
    from django.conf import settings

    with override_settings():
        del settings.CELERY_TASK_SERIALIZER
        del settings.CELERY_ACCEPT_CONTENT
        del settings.BROKER_URL
        assert checks.pickle_was_default() == []


def _module_level_reads(tree):
    """Yield the names read from Django's settings or ``conf`` outside functions."""
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        is_attribute = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if is_attribute and node.value.id in ("settings", "conf") and isinstance(node.ctx, ast.Load):
            yield f"{node.value.id}.{node.attr}"
        stack.extend(ast.iter_child_nodes(node))


def test_nothing_reads_a_setting_at_import():
    found = {
        path.name: reads
        for path in PACKAGE.rglob("*.py")
        if (reads := list(_module_level_reads(ast.parse(path.read_text()))))
    }
    assert found == {}


def test_only_conf_reads_djcelerys_own_settings():
    names = "|".join(configuration.Conf.all())
    readers = {
        path.name
        for path in PACKAGE.rglob("*.py")
        if re.search(rf"(?<!configuration\.)\bsettings\.({names})", path.read_text())
    }
    assert readers == set()


@pytest.mark.parametrize("name", ["DJCELERY_METRICS_TOKEN", "DJCELERY_WEBHOOK_TOKEN"])
def test_a_token_that_cannot_be_used_is_not_in_the_error(settings, name):
    setattr(settings, name, ["s3cret"])
    with pytest.raises(SettingError) as caught:
        getattr(configuration.conf, name)
    assert name in str(caught.value)
    assert "s3cret" not in str(caught.value)


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no words")


#: What people write by mistake, or a program that makes settings.
ODD_VALUES = (
    None,
    True,
    0,
    -1,
    -0.5,
    1,
    10**15,
    10**30,
    10**5000,
    -(10**30),
    1e-300,
    1e15,
    1e300,
    float("nan"),
    float("inf"),
    float("-inf"),
    Decimal("NaN"),
    2 + 3j,
    timedelta(0),
    timedelta(seconds=-5),
    timedelta(days=1_000_000),
    timedelta.max,
    timedelta.min,
    datetime(2026, 1, 1),
    "",
    "5",
    "a\x00b",
    "\udc80",
    "x" * 10_000,
    "https://user:pass@[::1",
    b"",
    b"\xff",
    [],
    [None],
    [[]],
    ["a\x00b", "\udc80"],
    ["::1/500", "10.1.2.3/16"],
    [".", "a..b", "-"],
    ["kwargs.", "args.-1"],
    ("x" * 300,),
    {},
    {1: 2},
    {None: None},
    {"a": "b"},
    {"https://[": "x"},
    {"https://x:y": "x"},
    {"https://\udc80": "x"},
    {"https://..": "x"},
    {"https://a.example": None},
    {"SUCCESS": -1, ("a",): 5},
    {"SUCCESS": float("inf")},
    {"SUCCESS": {"SUCCESS": {}}},
    set(),
    object(),
    object,
    len,
    lambda: 5,
    (n for n in ("result",)),
    gettext_lazy("mirror"),
    SimpleLazyObject(lambda: 5),
    SimpleLazyObject(lambda: ["result"]),
    Unprintable(),
)


@pytest.mark.parametrize("name", configuration.Conf.all())
def test_whatever_a_setting_is_it_works_or_is_an_error_that_says_what_to_write(name):
    for value in ODD_VALUES:
        with override_settings(**{name: value}):
            found = checks.own_settings()
            if found:
                assert [message.id for message in found] == ["djcelery.E101"], value
                assert found[0].msg.startswith(f"{name} = ")
                assert "not iterable" not in found[0].msg
                continue
            # A second look finds the same: what is used up by the first is refused.
            used = getattr(conf, name)
            assert getattr(conf, name) == used
            usable(configuration.Conf.all()[name].parse, used)


def usable(parse, used):
    """Check that what *parse* has returned can be used wherever such settings are."""
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
    if parse is ages.age:
        assert used is None or now - used <= now
    elif parse is parsers.seconds:
        assert used > 0
        assert now + timedelta(seconds=used)
        with socket.socket() as sock:
            sock.settimeout(used)
    elif parse is parsers.positive:
        assert len(range(used)) == used
    elif parse is parsers.lease_name:
        assert used.encode()


@pytest.mark.parametrize("name", configuration.Conf.all())
@pytest.mark.parametrize("value", [None, -1, float("inf"), timedelta.max, "", [None], {1: 2}], ids=repr)
def test_no_check_breaks_down_over_a_wrong_setting(name, value):
    with override_settings(**{name: value}):
        assert isinstance(run_checks(tags=[checks.TAG], include_deployment_checks=True), list)


AGES = [name for name, setting in configuration.Conf.all().items() if setting.parse is ages.age]


@pytest.mark.parametrize("name", AGES)
@pytest.mark.parametrize("value", [-5, -0.1, timedelta(seconds=-1), timedelta.min], ids=repr)
def test_an_age_below_zero_would_delete_everything_and_is_refused(name, value):
    with override_settings(**{name: value}):
        (found,) = checks.own_settings()
        with pytest.raises(SettingError, match="it is below 0; use None for never"):
            getattr(conf, name)
    assert found.id == "djcelery.E101"


@pytest.mark.parametrize("name", AGES)
@pytest.mark.parametrize("value", [10**15, 1e15, 10**30, float("inf"), float("nan")], ids=repr)
def test_a_number_that_is_no_age_is_refused(name, value):
    with override_settings(**{name: value}), pytest.raises(SettingError, match="no timedelta can hold it"):
        getattr(conf, name)


@pytest.mark.parametrize("name", AGES)
@pytest.mark.parametrize("value", [timedelta(days=1_000_000), timedelta.max, 1e13], ids=repr)
def test_an_age_beyond_the_calendar_is_never(name, value):
    with override_settings(**{name: value}):
        assert getattr(conf, name) is None


@pytest.mark.parametrize("name", AGES)
def test_an_age_of_zero_stays(name):
    with override_settings(**{name: 0}):
        assert getattr(conf, name) == timedelta(0)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e10, timedelta.max], ids=repr)
def test_a_wait_has_an_end(value):
    with override_settings(DJCELERY_BEAT_LEASE_S=value):
        (found,) = checks.own_settings()
    assert "use a number of seconds above zero, at most 1000000000" in found.msg


def test_a_token_that_stands_where_its_url_should_is_not_shown():
    with override_settings(DJCELERY_WEBHOOK_SEND_TOKENS={"s3cret": "https://hooks.example.com"}):
        (found,) = checks.own_settings()
    assert "s3cret" not in found.msg

"""The stand-alone monitor before it runs: its settings, files and arguments. tests/integration runs it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from celery.utils.imports import symbol_by_name
from django.core.management.base import CommandError

import djcelery
from djcelery import mon
from djcelery.exceptions import SettingError

ROOT = Path(__file__).resolve().parents[2]
NAME = "tests_djcelerymon_settings"


@pytest.fixture
def made(monkeypatch):
    """Make the settings, with *values*; return them as a mapping."""
    monkeypatch.delenv("CELERY_CONFIG_MODULE", raising=False)
    monkeypatch.setitem(sys.modules, NAME, None)

    def make(**values):
        assert mon.default_settings(NAME, **values) == NAME
        return vars(sys.modules[NAME])

    return make


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Write a config module of Celery, and name it."""

    def write(text):
        (tmp_path / "tests_celeryconfig.py").write_text(text)
        monkeypatch.chdir(tmp_path)
        monkeypatch.delitem(sys.modules, "tests_celeryconfig", raising=False)
        monkeypatch.setenv("CELERY_CONFIG_MODULE", "tests_celeryconfig")

    yield write
    sys.modules.pop("tests_celeryconfig", None)


@pytest.fixture
def started(tmp_path, monkeypatch):
    """What ``main`` would have run, without settings of a project: ``started["argv"]`` and the settings' values."""
    seen = {}
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    monkeypatch.setattr(mon, "is_configured", lambda: "DJANGO_SETTINGS_MODULE" in os.environ)
    monkeypatch.setattr(mon, "configure", lambda **values: seen.update(values))
    monkeypatch.setattr(mon, "call_command", lambda *args, **options: seen.update(migrated=args))
    monkeypatch.setattr(mon, "make_login", lambda is_new_password: seen.update(is_new_password=is_new_password))
    monkeypatch.setattr(mon, "execute_from_command_line", lambda argv: seen.update(argv=argv))
    monkeypatch.setattr(mon.connections, "close_all", lambda: None)
    monkeypatch.chdir(tmp_path)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


def python(code, cwd, **env):
    """Run *code* in a Python that has no settings yet; return what it printed."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, sys.path))), **env}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- settings ----------------------------------------------------------------------------------


def test_the_settings_are_those_of_the_legacy_monitor(made):
    found = made()
    assert found["ROOT_URLCONF"] == "djcelery.monproj.urls"
    assert found["BROKER_URL"] == "amqp://"
    assert found["SITE_ID"] == 1
    assert found["DATABASES"]["default"]["NAME"] == "djcelerymon.db"
    legacy = {"auth", "contenttypes", "sessions", "admin", "admindocs"}
    assert {f"django.contrib.{name}" for name in legacy} | {"djcelery"} <= set(found["INSTALLED_APPS"])
    assert found["INSTALLED_APPS"] == mon.DEFAULT_APPS


def test_the_settings_are_closed_to_others(made):
    found = made()
    assert found["DEBUG"] is False
    assert set(found["ALLOWED_HOSTS"]) == {"localhost", "127.0.0.1", "[::1]"}
    middleware = {path.rpartition(".")[2] for path in found["MIDDLEWARE"]}
    wanted = {"SecurityMiddleware", "SessionMiddleware", "CsrfViewMiddleware", "AuthenticationMiddleware"}
    assert wanted | {"XFrameOptionsMiddleware"} <= middleware
    assert not {"SESSION_COOKIE_HTTPONLY", "SESSION_COOKIE_SAMESITE"} & set(found)


def test_every_process_without_a_kept_key_has_another(made):
    keys = {made()["SECRET_KEY"] for _ in range(3)}
    assert len(keys) == 3
    assert min(map(len, keys)) >= 50
    assert made(SECRET_KEY="kept")["SECRET_KEY"] == "kept"


def test_settings_of_one_call_do_not_reach_the_next(made):
    made()["DATABASES"]["default"]["NAME"] = "other.db"
    assert made()["DATABASES"]["default"]["NAME"] == "djcelerymon.db"


@pytest.mark.parametrize(
    ("value", "debug"),
    [(None, "False"), ("0", "False"), ("false", "False"), ("no", "False"), ("maybe", "False"), ("", "False"),
     ("1", "True"), ("true", "True"), ("YES", "True"), ("on", "True")],
)  # fmt: skip
def test_debug_is_off_unless_the_environment_says_otherwise(value, debug, monkeypatch):
    monkeypatch.delenv("DJCELERYMON_DEBUG", raising=False)
    if value is not None:
        monkeypatch.setenv("DJCELERYMON_DEBUG", value)
    assert str(_read_again()["DEBUG"]) == debug


def _read_again():
    """Return what DEFAULTS would be if the module were imported now."""
    source = Path(mon.__file__).read_text()
    names = {"__name__": "djcelery.mon", "__file__": mon.__file__}
    exec(compile(source, mon.__file__, "exec"), names)
    return names["DEFAULTS"]


def test_the_config_module_of_celery_says_how_to_reach_broker_and_workers(made, config):
    config(
        "broker_url = 'redis://h/1'\nbroker_transport_options = {'global_keyprefix': 'x.'}\nevent_exchange = 'ev'\n"
        "imports = ('no.such.module',)\nresult_backend = 'redis://h/2'\nbeat_schedule = {'a': 1}\n"
        "SECRET_KEY = 'theirs'\nDATABASES = {}\nDEBUG = True\nDJCELERY_CAMERA_ENABLE_EVENTS = True\nx = 3\n"
    )
    found = made()
    assert found["CELERY_BROKER_URL"] == "redis://h/1"
    assert found["CELERY_BROKER_TRANSPORT_OPTIONS"] == {"global_keyprefix": "x."}
    assert found["CELERY_EVENT_EXCHANGE"] == "ev"
    assert found["DJCELERY_CAMERA_ENABLE_EVENTS"] is True
    assert not {"BROKER_URL", "CELERY_IMPORTS", "CELERY_RESULT_BACKEND", "CELERY_BEAT_SCHEDULE"} & set(found)
    assert found["SECRET_KEY"] != "theirs"
    assert found["DATABASES"]
    assert found["DEBUG"] is False


def test_a_config_module_may_have_the_old_names(made, config):
    config(
        "BROKER_URL = 'redis://h/1'\nCELERY_BROADCAST_EXCHANGE = 'pid'\n"
        "CELERY_DEFAULT_QUEUE = 'q'\nCELERY_IMPORTS = 'x'\n"
    )
    found = made()
    assert found["CELERY_BROKER_URL"] == "redis://h/1"
    assert found["CELERY_CONTROL_EXCHANGE"] == "pid"
    assert found["CELERY_TASK_DEFAULT_QUEUE"] == "q"
    assert not {"BROKER_URL", "CELERY_DEFAULT_QUEUE", "CELERY_IMPORTS"} & set(found)


def test_a_config_module_that_is_named_and_missing_is_an_error(made, monkeypatch):
    monkeypatch.setenv("CELERY_CONFIG_MODULE", "no_such_config")
    with pytest.raises(SettingError, match="CELERY_CONFIG_MODULE=no_such_config can't be imported"):
        made()


def test_settings_of_a_project_stay(monkeypatch):
    monkeypatch.setenv("CELERY_LOADER", "other")
    mon.configure(SECRET_KEY="ours")
    from django.conf import settings

    assert settings.SECRET_KEY != "ours"
    assert os.environ["CELERY_LOADER"] == "other"


def test_without_a_project_django_and_celery_are_configured_and_no_check_complains(tmp_path):
    code = (
        "import json, os, django\nfrom djcelery import mon\n"
        "mon.configure(SECRET_KEY='k' * 50)\ndjango.setup()\n"
        "from django.conf import settings\nfrom django.core import checks\nfrom djcelery.app import project_app\n"
        "from django.urls import reverse\n"
        "app = project_app()\n"
        "print(json.dumps({'key': settings.SECRET_KEY, 'broker': app.conf.broker_url,\n"
        "  'accept': app.conf.accept_content,\n"
        "  'loader': os.environ['CELERY_LOADER'], 'admin': reverse('admin:index'), 'zone': settings.TIME_ZONE,\n"
        "  'checks': [str(m) for m in checks.run_checks(include_deployment_checks=False)]}))"
    )
    found = json.loads(python(code, tmp_path, CELERY_LOADER="default", CELERY_BROKER_URL="memory://h//"))
    assert found.pop("zone")
    assert found == {
        "key": "k" * 50, "broker": "memory://h//", "accept": ["json"], "loader": djcelery.LOADER, "admin": "/",
        "checks": [],
    }  # fmt: skip


def test_the_documentation_pages_are_there_if_docutils_is(tmp_path):
    code = (
        "import sys\nfrom djcelery import mon\n{0}\nmon.configure()\nimport django; django.setup()\n"
        "from djcelery.monproj import urls\nprint([str(p.pattern) for p in urls.urlpatterns])"
    )
    pytest.importorskip("docutils")
    assert python(code.format(""), tmp_path) == "['doc/', '']\n"
    hide = (
        "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n, *a: None if n == 'docutils' else f(n, *a)"
    )
    assert python(code.format(hide), tmp_path) == "['']\n"


# -- files -------------------------------------------------------------------------------------


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_made_for_its_owner_alone(tmp_path):
    path = tmp_path / "a.db"
    before = os.umask(0)
    try:
        mon.make_private(path)
    finally:
        os.umask(before)
    assert mode(path) == 0o600


def test_a_file_that_others_could_read_is_closed_and_keeps_what_it_has(tmp_path):
    path = tmp_path / "a.db"
    path.write_text("rows")
    path.chmod(0o664)
    mon.make_private(path)
    assert mode(path) == 0o600
    assert path.read_text() == "rows"


def test_a_file_of_another_user_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.db"
    path.touch()
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(CommandError, match="belongs to another user"):
        mon.make_private(path)


def test_the_key_is_made_once_and_kept(tmp_path):
    path = tmp_path / "a.key"
    key = mon.secret_key(path)
    assert len(key) >= 50
    assert mode(path) == 0o600
    assert mon.secret_key(path) == key
    assert mon.secret_key(tmp_path / "b.key") != key


@pytest.mark.parametrize("text", ["", "short"])
def test_a_key_that_is_none_is_replaced(tmp_path, text):
    path = tmp_path / "a.key"
    path.write_text(text)
    assert len(mon.secret_key(path)) >= 50


# -- arguments ---------------------------------------------------------------------------------


def test_it_makes_files_tables_and_login_and_runs_the_command(started, tmp_path, capsys):
    mon.main(["x/mon.py", "8001", "-b", "redis://h", "-F", "2.0"])
    name = started["argv"].pop(2)
    assert started["argv"] == ["djcelerymon", "djcelerymon", "8001", "-b", "redis://h", "-F", "2.0"]
    assert name.startswith("--name=djcelerymon-")
    assert name.endswith("@%h")
    assert started["migrated"] == ("migrate",)
    assert started["is_new_password"] is False
    assert started["SECRET_KEY"] == (tmp_path / "djcelerymon.db.key").read_text().strip()
    assert started["DATABASES"]["default"]["NAME"] == str(tmp_path / "djcelerymon.db")
    assert {path.name for path in tmp_path.iterdir()} == {"djcelerymon.db", "djcelerymon.db.key"}
    assert str(tmp_path / "djcelerymon.db") in capsys.readouterr().out


def test_monitors_of_two_databases_have_two_names_and_one_given_wins(started):
    mon.main(["x"])
    one = started["argv"]
    mon.main(["x", "--database", "other.db"])
    assert started["argv"] != one
    mon.main(["x"])
    assert started["argv"] == one
    mon.main(["x", "--name", "mine"])
    assert started["argv"][2:] == [one[2], "--name", "mine"]


@pytest.mark.parametrize(
    ("words", "hosts"),
    [
        ([], []),
        (["8001"], []),
        (["192.168.1.5:8001"], ["192.168.1.5"]),
        (["-F", "2", "mon.example.com:80", "-b", "redis://:pass@h:6379/0"], ["mon.example.com"]),
        (["[fd00::1]:8000"], ["[fd00::1]"]),
        (["--allow-host", "a.example.com", "--allow-host=b.example.com"], ["a.example.com", "b.example.com"]),
    ],
)
def test_the_hosts_are_loopback_and_what_the_line_names(started, words, hosts):
    mon.main(["x", *words])
    assert started["ALLOWED_HOSTS"] == ["localhost", "127.0.0.1", "[::1]", *hosts]


@pytest.mark.parametrize("everywhere", ["0.0.0.0:8000", "0:8000", "[::]:8000"])
def test_who_listens_everywhere_is_called_by_the_host_name(started, everywhere, monkeypatch):
    monkeypatch.setattr(mon.socket, "gethostname", lambda: "Box")
    mon.main(["x", everywhere])
    assert "box" in started["ALLOWED_HOSTS"]
    assert "*" not in started["ALLOWED_HOSTS"]


def test_a_password_is_printed_and_only_when_it_was_made(started, monkeypatch, capsys):
    monkeypatch.setattr(mon, "make_login", lambda is_new_password: "pass-word")
    mon.main(["x"])
    out = capsys.readouterr().out
    assert "pass-word" in out
    assert "admin" in out
    monkeypatch.setattr(mon, "make_login", lambda is_new_password: None)
    mon.main(["x"])
    assert "shown only now" not in capsys.readouterr().out


def test_a_new_password_is_printed_and_nothing_is_started(started, monkeypatch, capsys):
    monkeypatch.setattr(mon, "make_login", lambda is_new_password: f"new={is_new_password}")
    with pytest.raises(SystemExit) as ended:
        mon.main(["x", "--reset-password"])
    assert ended.value.code == 0
    assert "new=True" in capsys.readouterr().out
    assert "argv" not in started


def test_a_project_is_used_as_it_is(started, tmp_path, monkeypatch):
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "proj.settings")
    mon.main(["x", "8001", "-F", "2"])
    assert started == {"argv": ["djcelerymon", "djcelerymon", "8001", "-F", "2"]}
    assert list(tmp_path.iterdir()) == []


def test_a_project_may_be_named_on_the_line(started, tmp_path):
    mon.main(["x", "--settings=proj.settings", "8001"])
    assert os.environ["DJANGO_SETTINGS_MODULE"] == "proj.settings"
    assert started == {"argv": ["djcelerymon", "djcelerymon", "8001"]}
    assert list(tmp_path.iterdir()) == []


def test_the_passwords_of_a_project_are_left_alone(started, capsys):
    with pytest.raises(SystemExit) as ended:
        mon.main(["x", "--settings=proj.settings", "--reset-password"])
    assert ended.value.code == 1
    assert "manage.py changepassword" in capsys.readouterr().err
    assert started == {}


def test_help_and_version_make_no_file(started, tmp_path, capsys):
    mon.main(["x", "--help"])
    assert started["argv"] == ["djcelerymon", "djcelerymon", "--help"]
    out = capsys.readouterr().out
    for option in ("--database", "--allow-host", "--reset-password", "--settings"):
        assert option in out
    mon.main(["x", "--version"])
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error_without_traceback(started, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        mon.main(["x", "--database", str(tmp_path / "missing" / "a.db")])
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("djcelerymon: [Errno 2]")
    assert "argv" not in started


def test_a_strange_value_for_debug_is_said(started, monkeypatch, capsys):
    monkeypatch.setenv("DJCELERYMON_DEBUG", "maybe")
    mon.main(["x"])
    assert "DJCELERYMON_DEBUG=maybe is neither true nor false" in capsys.readouterr().err


def test_the_program_of_this_name_is_declared():
    tomllib = pytest.importorskip("tomllib")
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert symbol_by_name(scripts["djcelerymon"]) is mon.main

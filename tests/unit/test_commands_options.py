"""Command lines of celeryd and its relatives: what Celery gets for what was typed."""

from __future__ import annotations

import io
import os

import celery
import pytest
from django.core.management import call_command, load_command_class
from django.core.management.base import CommandError
from django.test import override_settings

from djcelery.management import options as option_tools
from djcelery.management.base import CeleryCommand
from djcelery.management.commands import celeryd, celeryd_multi

NAMES = (
    "celery", "celeryd", "celerybeat", "celerycam", "celeryev", "celeryctl", "camqadm", "celeryd_multi",
    "celeryd_detach", "celerymon",
)  # fmt: skip


@pytest.fixture
def ran(celery_app, monkeypatch, tmp_path):
    """What was handed to Celery: ``ran["line"]`` and ``ran["defaults"]``; nothing is started."""
    calls = {}

    def run_celery(self, line, program_name=None, defaults=None, **options):
        calls.update(line=line, defaults=next(iter((defaults or {}).values()), {}))

    monkeypatch.setattr(CeleryCommand, "run_celery", run_celery)
    monkeypatch.setattr("djcelery.management.daemon.write_default_pidfile", lambda path: calls.update(pidfile=path))
    monkeypatch.setattr("signal.signal", lambda *args: None)
    monkeypatch.chdir(tmp_path)
    for name in ("CELERY_BROKER_URL", "CELERY_LOADER", "CELERY_RESULT_BACKEND", "PYTHONPATH", "DJANGO_SETTINGS_MODULE"):
        # Set and deleted, so that monkeypatch restores what the command writes.
        monkeypatch.setenv(name, os.environ.get(name, ""))
    return calls


def typed(name, *words):
    """Run a command as if *words* had been typed; return what it wrote to standard error."""
    command = load_command_class("djcelery", name)
    command.stderr._out = io.StringIO()
    command.run_from_argv(["manage.py", name, *words])
    return command.stderr._out.getvalue()


@pytest.mark.parametrize(
    ("name", "words", "line"),
    [
        ("celeryd", ["-c3", "-Q", "a,b"], ["worker", "--concurrency=3", "--queues=a,b"]),
        ("celeryd", ["-EB", "--discard"], ["worker", "--task-events", "--purge", "--beat"]),
        ("celeryd", ["--maxtasksperchild", "10"], ["worker", "--max-tasks-per-child=10"]),
        ("celeryd", ["--maxtasksperchild=10"], ["worker", "--max-tasks-per-child=10"]),
        ("celeryd", ["-l", "warn"], ["worker", "--loglevel=WARNING"]),
        ("celeryd", ["-l", "20"], ["worker", "--loglevel=INFO"]),
        ("celeryd", ["--loglevel=Fatal"], ["worker", "--loglevel=CRITICAL"]),
        ("celeryd", ["-b", "redis://h"], ["--broker=redis://h", "worker"]),
        ("celeryd", ["-c", "1", "-C", "-q"], ["--no-color", "--quiet", "worker", "--concurrency=1"]),
        ("celeryd", ["--no-color"], ["--no-color", "worker"]),
        ("celeryd", ["--traceback", "-v", "2", "--pythonpath", "."], ["worker"]),
        ("celeryd", ["--schedule=f"], ["worker", "--schedule-filename=f"]),
        ("celeryd", ["-c", "1", "--", "worker.x=1"], ["worker", "--concurrency=1", "--", "worker.x=1"]),
        ("celerybeat", ["--max-interval", "5.0"], ["beat", "--max-interval=5"]),
        ("celerybeat", ["--max-interval=0.5"], ["beat", "--", "beat.max_loop_interval=0.5"]),
        pytest.param(
            "celerybeat",
            ["--no-enable-remote-control"],
            ["beat", "--no-enable-remote-control"],
            marks=pytest.mark.skipif(celery.VERSION < (5, 7), reason="an option of Celery 5.7"),
        ),
        ("celeryev", ["-d"], ["events", "--dump"]),
        ("celeryev", ["-c", "a.B", "-f", "2.0"], ["events", "--camera=a.B", "--logfile=2.0"]),
        ("celerycam", ["-f", "2.0"], ["events", "--frequency=2.0", "--camera=djcelery.snapshot.Camera"]),
        ("celerycam", ["-f2"], ["events", "--frequency=2", "--camera=djcelery.snapshot.Camera"]),
        ("celerycam", ["-f", "f.log"], ["events", "--logfile=f.log", "--camera=djcelery.snapshot.Camera"]),
        ("celerycam", ["-f", "2", "--freq", "3"], ["events", "--frequency=3", "--camera=djcelery.snapshot.Camera"]),
        ("celerycam", ["--logfile=2.0"], ["events", "--logfile=2.0", "--camera=djcelery.snapshot.Camera"]),
        ("celery", ["worker", "-l", "warn"], ["worker", "--loglevel=WARNING"]),
        ("celery", ["-b", "U", "worker", "--maxtasksperchild=1"], ["--broker=U", "worker", "--max-tasks-per-child=1"]),
        ("celery", ["beat", "-b", "URL"], ["--broker=URL", "beat"]),
        ("celery", ["status", "-b", "URL", "-t", "3"], ["-bURL", "status", "-t", "3"]),
        ("celeryctl", ["apply", "t", "--settings", "x"], ["call", "t"]),
        ("celeryctl", ["purge"], ["purge", "--force"]),
        ("celery", ["purge"], ["purge"]),
    ],
)  # fmt: skip
def test_legacy_line_becomes_the_line_of_today(ran, name, words, line):
    typed(name, *words)
    assert ran["line"] == line


def test_settings_on_the_line_of_a_program_that_takes_none_are_an_error(ran):
    with pytest.raises(SystemExit) as ended:
        typed("celerycam", "a.b=1")
    assert ended.value.code == 2


def test_camqadm_shows_its_commands_without_a_broker(celery_app):
    out = io.StringIO()
    call_command("camqadm", "help", "queue.declare", stdout=out)
    assert "queue.declare queue passive durable exclusive auto_delete" in out.getvalue()
    assert "basic.ack" not in out.getvalue()


@pytest.mark.parametrize("words", [["extra"], ["-l", "loud"], ["--no-such-option"], ["-c"]])
def test_wrong_lines_end_with_status_2(ran, capsys, words):
    with pytest.raises(SystemExit) as ended:
        typed("celeryd", *words)
    assert ended.value.code == 2
    assert "line" not in ran
    assert "manage.py celeryd: error:" in capsys.readouterr().err


def test_a_legacy_option_without_counterpart_is_named_with_what_to_do(ran):
    warning = typed("celeryd", "--no-execv")
    assert "--no-execv has no effect" in warning
    assert "CELERY_WORKER_POOL_START_METHOD" in warning
    assert ran["line"] == ["worker"]


def test_celerycam_says_that_another_camera_is_not_used(ran):
    assert "--camera=my.Camera is not used" in typed("celerycam", "-c", "my.Camera")


@pytest.mark.parametrize("value", ["0", "-1"])
def test_celerycam_refuses_a_frequency_that_is_not_above_0(ran, value):
    with pytest.raises(CommandError, match="not a number of seconds above 0"):
        call_command("celerycam", "-f", value)


def test_defaults_of_the_log_come_from_legacy_settings(ran):
    for name, level in (("celeryd", "WARNING"), ("celerybeat", "INFO"), ("celerycam", "INFO"), ("celeryev", "INFO")):
        call_command(name)
        assert ran["defaults"] == {"loglevel": level}
    with override_settings(CELERYD_LOG_LEVEL="warn", CELERYD_LOG_FILE="w.log", CELERYBEAT_LOG_LEVEL=10):
        call_command("celeryd")
        assert ran["defaults"] == {"loglevel": "WARNING", "logfile": "w.log"}
        call_command("celerybeat")
        assert ran["defaults"] == {"loglevel": "DEBUG"}
    with override_settings(CELERYD_LOG_LEVEL="loud"), pytest.raises(CommandError, match="CELERYD_LOG_LEVEL: 'loud'"):
        call_command("celeryd")


def test_a_level_without_a_name_is_handed_over_as_a_number(ran):
    typed("celeryd", "-l", "15")
    assert ran["line"] == ["worker"]
    assert ran["defaults"]["loglevel"] == 15


def test_default_pid_files(ran):
    for name, path in (("celerybeat", "celerybeat.pid"), ("celerycam", "celeryev.pid")):
        call_command(name)
        assert ran.pop("pidfile") == path
        call_command(name, pidfile="mine.pid")
        assert "pidfile" not in ran
    for line in (["celeryd"], ["celeryev"], ["celeryev", "--dump"]):
        call_command(*line)
        assert "pidfile" not in ran
    call_command("celeryev", camera="a.B")
    assert ran["pidfile"] == "celeryev.pid"


def test_call_command_takes_keywords_of_today_and_of_old(ran):
    call_command("celeryd", concurrency=2, loglevel="info", queues=["a", "b"], beat=True, max_tasks_per_child=5)
    assert set(ran["line"]) >= {"--concurrency=2", "--loglevel=INFO", "--queues=a,b", "--beat"}
    call_command("celeryd", pool_cls="solo", task_time_limit=5, send_events=True, discard=True, loglevel=30)
    assert set(ran["line"]) >= {"--pool=solo", "--time-limit=5", "--task-events", "--purge", "--loglevel=WARNING"}
    with pytest.raises(TypeError, match="Unknown option"):
        call_command("celeryd", concurency=2)
    with pytest.raises(CommandError, match="--loglevel: 'loud'"):
        call_command("celeryd", loglevel="loud")


def test_every_option_of_celery_is_offered(ran, celery_app):
    for name in ("celeryd", "celerybeat", "celeryev", "celerycam"):
        command = load_command_class("djcelery", name)
        offered = set(command.create_parser("manage.py", name)._option_string_actions)
        for option in (*option_tools.group_options(), *option_tools.program_options(command.program, celery_app)):
            assert set(option.opts) | set(option.secondary_opts) <= offered


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_every_option_with_its_meaning(ran, name):
    command = load_command_class("djcelery", name)
    parser = command.create_parser("manage.py", name)
    text = parser.format_help()
    assert f"usage: manage.py {name}" in text
    assert "==SUPPRESS==" not in text
    assert [action.option_strings for action in parser._actions if not action.help] == []


def test_help_names_units():
    text = load_command_class("djcelery", "celeryd").create_parser("manage.py", "celeryd").format_help()
    assert "--time-limit SECONDS" in text
    assert "--max-memory-per-child KIB" in text


@pytest.mark.parametrize("name", NAMES)
def test_version_names_both_packages(ran, capsys, name):
    with pytest.raises(SystemExit) as ended:
        typed(name, "--version")
    assert ended.value.code == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("celery 5.")
    assert second.startswith("djcelery ")


def test_options_that_the_project_added_are_offered(ran, celery_app):
    import click

    celery_app.user_options["worker"].add(click.Option(["--fancy"], is_flag=True))
    typed("celeryd", "--fancy")
    assert "--fancy" in ran["line"]


def test_settings_broker_and_python_path_reach_children(ran, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", "/a")
    typed("celeryd", "--pythonpath", str(tmp_path), "-b", "redis://h/?x=y", "--settings", "tests.settings")
    assert os.environ["PYTHONPATH"] == f"{tmp_path}{os.pathsep}/a"
    assert os.environ["CELERY_BROKER_URL"] == "redis://h/?x=y"
    assert os.environ["DJANGO_SETTINGS_MODULE"] == "tests.settings"


def test_handle_default_options_returns_the_rest_of_the_line(ran):
    line = ["worker", "--broker=amqp://h?a=b", "-c", "2"]
    assert CeleryCommand().handle_default_options(line) == ["worker", "-c", "2"]
    command = celeryd_multi.Command()
    assert command.handle_default_options(line) == line


def test_detached_child_gets_the_same_line_in_the_foreground(ran, monkeypatch):
    seen = {}
    monkeypatch.setattr("djcelery.management.daemon.detach", lambda line, **options: seen.update(options, line=line))
    typed("celeryd", "-D", "-c", "2", "-b", "redis://h", "--uid", "1", "--settings=tests.settings", "--", "worker.x=1")
    assert seen["line"] == [
        os.path.abspath("manage.py"), "celeryd", "--default-pidfile=celeryd.pid", "--settings=tests.settings",
        "--broker=redis://h", "--concurrency=2", "--", "worker.x=1",
    ]  # fmt: skip
    assert seen["uid"] == "1"
    typed("celeryd_detach", "--pidfile=%n.pid", "-n", "w1@h", "-f", "%n%I.log")
    assert seen["line"][1:2] == ["celeryd"]
    assert (seen["pidfile"], seen["logfile"]) == ("w1.pid", "w1.log")


def test_autoreload_purges_only_once(ran, monkeypatch):
    seen = {}

    class Reloader:
        def __init__(self, app, first, later):
            seen.update(first=first, later=later)

        def run(self):
            return 3

    monkeypatch.setattr(celeryd, "Reloader", Reloader)
    with pytest.raises(CommandError, match="ended with status 3") as failed:
        call_command("celeryd", autoreload=True, purge=True, concurrency=2)
    assert failed.value.returncode == 3
    assert seen["first"][:3] == ["-m", "django", "celeryd"]
    assert seen["first"][-2:] == ["--concurrency=2", "--purge"]
    assert seen["later"] == seen["first"][:-1]


def multi(*words):
    out = io.StringIO()
    call_command("celeryd_multi", *words, stdout=out)
    return out.getvalue().splitlines()


def test_multi_starts_nodes_through_manage_py_with_files_in_the_working_directory(ran):
    line = multi("show", "w1", "-c", "2", "--settings", "tests.settings", "-b", "amqp://h/v")[0]
    assert " celery --broker=amqp://h/v worker --detach -c 2 " in line
    for word in ("--settings=tests.settings", "--pidfile=w1.pid", "--logfile=w1%I.log", "-n w1@"):
        assert word in line
    line = multi("show", "w1", "--pidfile=/tmp/%n.pid", "-f", "x.log")[0]
    assert "--pidfile=/tmp/w1.pid" in line
    assert "--logfile" not in line


def test_multi_hands_a_broker_url_with_a_percent_sign_on_by_the_environment(ran):
    line = multi("show", "w1", "-b", "amqp://h/%2F")[0]
    assert "--broker" not in line
    assert os.environ["CELERY_BROKER_URL"] == "amqp://h/%2F"


def test_multi_options_of_one_node_and_for_all(ran):
    first, second = multi("show", "2", "-c", "3", "-c:1", "10", "--", "--fancy")
    assert " -c 10 " in first
    assert " -c 3 " in second
    assert first.endswith("-- --fancy")


def test_multi_refuses_a_command_that_celery_cannot_use(ran):
    with pytest.raises(CommandError, match="must have the word celery"):
        multi("show", "w1", "--cmd=manage.py celeryd_detach")


def test_multi_without_a_verb_fails(ran):
    with pytest.raises(CommandError) as failed:
        multi()
    assert failed.value.returncode == 1


def test_umbrella_without_a_sub_command_shows_them_and_is_64(ran):
    out = io.StringIO()
    with pytest.raises(CommandError) as failed:
        call_command("celery", stdout=out)
    assert failed.value.returncode == 64
    assert "Call a task by name" in out.getvalue()


def test_celerymon_fails_and_says_what_to_use():
    with pytest.raises(CommandError, match="celerycam"):
        call_command("celerymon")


def test_unknown_app_is_an_error_and_not_a_traceback(celery_app):
    with pytest.raises(CommandError) as failed:
        call_command("celery", "-A", "no.such.app", "report")
    assert failed.value.returncode == 2

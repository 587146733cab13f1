"""The files of ``docs/deployment.rst`` are ones that their programs take, with lines that our commands take."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from logging.handlers import WatchedFileHandler

import pytest
from django.core.management import call_command

from djcelery.models import CrontabSchedule, PeriodicTask
from tests.docs import pages
from tests.docs.test_typed import parsed
from tests.services import wait_until

PAGE = pages.read("deployment")
BLOCKS = list(pages.blocks(PAGE))
PYTHON = "/srv/shop/venv/bin/python"


def units() -> dict[str, str]:
    """Return the systemd units by the names of their files."""
    inside = [block for block in BLOCKS if block.language == "ini" and block.section == "systemd"]
    return {block.file.rpartition("/")[2]: block.text for block in inside}


def ini(text: str) -> configparser.ConfigParser:
    # Values may hold "%", and systemd's keys have capitals.
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read_string(text)
    return parser


# -- systemd


def test_there_is_a_unit_for_every_program():
    assert set(units()) == {
        "celeryd@.service",
        "celerybeat@.service",
        "celerycam.service",
        "celery-health.service",
        "celery-health.timer",
    }


@pytest.mark.parametrize("name", [name for name in units() if name.endswith(".service")])
def test_the_line_of_a_unit_is_one_that_the_command_takes(name):
    service = ini(units()[name])["Service"]
    interpreter, script, command, *arguments = shlex.split(service["ExecStart"].replace("%%", "%"))
    assert (interpreter, script) == (PYTHON, "manage.py")
    options = parsed(command, arguments)
    assert not getattr(options, "detach", False)
    assert service["WorkingDirectory"] == "/srv/shop"
    assert service["User"] == "shop"


@pytest.mark.parametrize("name", ["celeryd@.service", "celerybeat@.service", "celerycam.service"])
def test_a_program_is_stopped_by_sigterm_and_restarted(name):
    service = ini(units()[name])["Service"]
    assert service["Type"] == "exec"
    assert service["KillSignal"] == "SIGTERM"
    assert service["Restart"] == "always"
    assert int(service["TimeoutStopSec"]) >= 30


def test_only_the_main_process_of_a_worker_gets_sigterm():
    assert ini(units()["celeryd@.service"])["Service"]["KillMode"] == "mixed"


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed; the other tests read the units without it")
    paths = []
    for name, text in units().items():
        # A template is verified as one of its instances. The interpreter must exist.
        path = tmp_path / name.replace("@.", "@celery.")
        path.write_text(text.replace(PYTHON, sys.executable).replace("/srv/shop", str(tmp_path)))
        paths.append(str(path))
    verified = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, timeout=180)
    complaints = [line for line in verified.stderr.splitlines() if any(name.split("@")[0] in line for name in units())]
    assert complaints == []


# -- supervisor, containers


def test_the_programs_of_supervisor_are_lines_that_the_commands_take():
    text = next(block.text for block in BLOCKS if block.section == "Supervisor")
    programs = ini(text)
    assert programs.sections() == ["program:celeryd", "program:celerybeat", "program:celerycam"]
    for name in programs.sections():
        _python, _script, command, *arguments = shlex.split(programs[name]["command"].replace("%%", "%"))
        assert name == f"program:{command}"
        parsed(command, arguments)
    assert programs["program:celeryd"]["stopasgroup"] == "false"


def lists_in(value):
    """Yield every list of texts in nested *value*."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from lists_in(inner)
    elif isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            yield value
        for inner in value:
            yield from lists_in(inner)


@pytest.mark.parametrize("section", ["Docker", "Kubernetes"])
def test_the_commands_of_containers_are_lines_that_the_commands_take(section):
    yaml = pytest.importorskip("yaml", reason="not installed: pip install PyYAML")
    text = next(block.text for block in BLOCKS if block.section == section and block.language == "yaml")
    found = 0
    for words in lists_in(yaml.safe_load(text)):
        line = words if "manage.py" in words else shlex.split(words[-1].replace("$$(hostname)", "host"))
        if "manage.py" in line:
            name, *arguments = line[line.index("manage.py") + 1 :]
            parsed(name, arguments)
            found += 1
    assert found >= 2


def test_every_command_on_the_page_is_one_that_is_taken():
    found = list(pages.commands(PAGE))
    assert {"check", "migrate", "dumpdata", "loaddata", "celerybeat", "celerycam"} <= {name for name, _ in found}
    for name, arguments in found:
        parsed(name, [word.replace("%%", "%") for word in arguments])


def test_probes_name_the_worker_as_the_worker_names_itself():
    compose, kubernetes = (
        next(b.text for b in BLOCKS if b.language == "yaml" and b.section == s) for s in ("Docker", "Kubernetes")
    )
    assert '"worker@%h"' in compose
    assert "--hostname worker@$$(hostname)" in compose
    assert "celery@$(POD_NAME)" in kubernetes
    assert "--hostname celery@$POD_NAME" in kubernetes


# -- what else is claimed


@pytest.fixture
def busy(programs):
    """A worker in the middle of a task, the file that the task writes, and a function that lets the task end."""
    worker = programs.start("celeryd", "-l", "INFO", ready=" ready.")
    log, release = programs.root / "log", programs.root / "release"
    programs.call("shop.tasks.sleepy", str(log), str(release), 120)
    wait_until(lambda: log.exists() and log.read_text() == "started\n", 60, "the task to start")
    return worker, log, release.touch


@pytest.mark.integration
@pytest.mark.long
def test_sigterm_to_the_main_process_alone_lets_the_task_end(busy):
    worker, log, let_end = busy
    worker.send(signal.SIGTERM)
    worker.wait_for("Warm shutdown")
    let_end()
    assert worker.end() == 0
    assert log.read_text() == "started\nfinished\n"


@pytest.mark.integration
@pytest.mark.long
def test_sigterm_to_all_processes_ends_the_task_in_the_middle(busy):
    worker, log, let_end = busy
    os.killpg(worker.pid, signal.SIGTERM)
    worker.wait_for("exited with 'signal 15 (SIGTERM)'")
    let_end()
    assert log.read_text() == "started\n"


def test_a_log_file_is_opened_again_when_it_was_moved(celery_app, tmp_path):
    handler = celery_app.log._detect_handler(str(tmp_path / "log"))
    handler.close()
    assert isinstance(handler, WatchedFileHandler)


@pytest.mark.django_db
def test_the_schedule_goes_into_a_file_and_comes_back(tmp_path):
    nightly = CrontabSchedule.objects.create(minute="30", hour="2", timezone="Europe/Brussels")
    PeriodicTask.objects.create(
        name="close", task="shop.tasks.close", crontab=nightly, kwargs=json.dumps({"year": 2026})
    )
    lines = dict(command for command in pages.commands(PAGE) if command[0] in ("dumpdata", "loaddata"))
    path = str(tmp_path / "schedule.json")
    call_command("dumpdata", *[path if word == "schedule.json" else word for word in lines["dumpdata"]], verbosity=0)
    PeriodicTask.objects.all().delete()
    CrontabSchedule.objects.all().delete()
    call_command("loaddata", path, verbosity=0)
    task = PeriodicTask.objects.get()
    assert (task.name, str(task.crontab), task.kwargs) == ("close", str(nightly), '{"year": 2026}')
    models = re.findall(r"djcelery\.(\w+)", " ".join(lines["dumpdata"]))
    assert models == ["intervalschedule", "crontabschedule", "solarschedule", "clockedschedule", "periodictask"]
    PeriodicTask.objects.update(enabled=False)
    assert not PeriodicTask.objects.enabled().exists()


def test_only_tables_that_fill_by_themselves_are_left_out_of_a_backup():
    from django.apps import apps

    left_out = re.findall(r"--exclude-table-data='(\w+)'", PAGE)
    tables = {model._meta.db_table: model.__name__ for model in apps.get_app_config("djcelery").get_models()}
    assert {tables[name] for name in left_out} == {"TaskState", "TaskMeta"}

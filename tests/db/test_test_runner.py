"""The test runners under which tasks run eagerly, in this process and in real runs of ``manage.py test``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from celery import shared_task
from celery.exceptions import Ignore, Retry
from django.conf import settings
from django.core.management.base import CommandError
from django.db.models import Model
from django.test.runner import DiscoverRunner
from kombu.exceptions import EncodeError

from djcelery.backends.database import DatabaseBackend
from djcelery.contrib import test_runner
from djcelery.contrib.test_runner import eager_tasks, stored_eager_tasks
from djcelery.contrib.testing import capture_tasks
from djcelery.models import TaskMeta

ROOT = Path(__file__).parents[2]


@shared_task(name="runner.add")
def add(x, y=0):
    return x + y


@shared_task(name="runner.fail")
def fail(text):
    raise CommandError(text)


@shared_task(name="runner.secret", redact=["args", "result"])
def secret(word):
    raise ValueError(word)


@shared_task(name="runner.ignored", ignore_result=True)
def ignored(works=True):
    if not works:
        raise ValueError("no")


@shared_task(name="runner.ignores", bind=True)
def ignores(self):
    raise Ignore


@shared_task(name="runner.flaky", bind=True)
def flaky(self):
    raise self.retry(exc=OSError("not yet"))


@shared_task(name="runner.tracked", bind=True, track_started=True)
def tracked(self):
    seen.append(TaskMeta.objects.get(task_id=self.request.id).status)
    return TaskMeta.objects.get(task_id=self.request.id).started is not None


@shared_task(name="runner.parent")
def parent():
    add.delay(1)
    return "done"


@shared_task(name="runner.unstorable")
def unstorable():
    return object()


seen = []


def row(name):
    return TaskMeta.objects.get(name=f"runner.{name}")


# eager


def test_tasks_run_at_once_and_their_exceptions_reach_the_caller(celery_app):
    with eager_tasks():
        assert settings.CELERY_ALWAYS_EAGER is settings.CELERY_TASK_ALWAYS_EAGER is True
        assert settings.CELERY_EAGER_PROPAGATES_EXCEPTIONS is settings.CELERY_TASK_EAGER_PROPAGATES is True
        assert add.delay(2, 2).get() == 4
        with pytest.raises(CommandError, match="sold out"):
            fail.delay("sold out")


def test_a_task_that_would_be_tried_again_says_so(celery_app):
    with eager_tasks(), pytest.raises(Retry):
        flaky.delay()


@pytest.mark.django_db
def test_the_first_runner_stores_nothing(celery_app):
    with eager_tasks():
        add.delay(2, 2)
    assert TaskMeta.objects.count() == 0


def test_set_eager_can_be_undone(celery_app):
    undo = test_runner._set_eager()
    assert add.delay(2, 2).get() == 4
    undo()
    assert celery_app.conf.task_always_eager is False


@pytest.mark.parametrize("own", [{}, {"task_always_eager": False}, {"CELERY_ALWAYS_EAGER": True}])
@pytest.mark.parametrize("changes", [eager_tasks, stored_eager_tasks])
def test_everything_is_as_before(celery_app, changes, own, settings):
    settings.CELERY_TASK_EAGER_PROPAGATES = False
    celery_app.conf.update(own)
    celery_app.finalize()
    _ = celery_app.conf.task_always_eager, celery_app.tasks["runner.add"].store_eager_result
    conf, backend, task = dict(celery_app.conf.changes), celery_app.backend, dict(vars(celery_app.tasks["runner.add"]))
    names = {*test_runner._EAGER_SETTINGS, *test_runner._STORING_SETTINGS}
    before = {name: getattr(settings, name, "unset") for name in names}
    with changes():
        assert celery_app.conf.task_always_eager is True
        assert vars(celery_app.tasks["runner.add"]) != task or changes is eager_tasks
    assert dict(celery_app.conf.changes) == conf
    assert celery_app.backend is backend
    assert vars(celery_app.tasks["runner.add"]) == task
    assert {name: getattr(settings, name, "unset") for name in names} == before


def test_the_names_of_the_legacy_module_are_there():
    assert "TEST_RUNNER" in test_runner.USAGE
    for runner in (test_runner.CeleryTestSuiteRunner, test_runner.CeleryTestSuiteRunnerStoringResult):
        assert issubclass(runner, DiscoverRunner)


# stored


@pytest.fixture
def storing(celery_app, db):
    seen.clear()
    with stored_eager_tasks():
        yield celery_app


def known(row: Model) -> set[str]:
    """Return the columns of *row* that are known."""
    return {field.attname for field in row._meta.fields if getattr(row, field.attname) not in (None, "")}


def test_a_result_has_the_columns_that_a_worker_writes(storing):
    assert isinstance(storing.backend, DatabaseBackend)
    result = add.apply_async((1,), {"y": 2})
    stored = row("add")
    assert (stored.task_id, stored.status, stored.result, stored.args, stored.kwargs, stored.retries) == (
        result.id,
        "SUCCESS",
        3,
        [1],
        {"y": 2},
        0,
    )
    assert stored.created <= stored.started <= stored.finished
    assert storing.AsyncResult(result.id).get() == 3
    with capture_tasks(store_results=True) as tasks:
        add.apply_async((1,), {"y": 2})
        tasks.run()
    workers = TaskMeta.objects.exclude(task_id=result.id).get()
    # Nothing was queued.
    assert known(workers) - known(stored) == {"queue"}
    assert known(stored) <= known(workers)


def test_a_failure_is_stored_and_reaches_the_caller(storing):
    with pytest.raises(CommandError):
        fail.delay("sold out")
    stored = row("fail")
    assert (stored.status, stored.args, stored.retries) == ("FAILURE", ["sold out"], 0)
    assert "sold out" in stored.traceback
    assert stored.finished
    with pytest.raises(CommandError, match="sold out"):
        storing.AsyncResult(stored.task_id).get()
    with capture_tasks(store_results=True) as tasks:
        fail.delay("sold out")
        tasks.run(throw=False)
    workers = TaskMeta.objects.exclude(task_id=stored.task_id).get()
    assert known(workers) - known(stored) == {"queue"}


def test_a_retry_is_stored_with_its_reason(storing):
    with pytest.raises(Retry):
        flaky.delay()
    assert row("flaky").status == "RETRY"
    assert "not yet" in str(row("flaky").result)


def test_what_is_redacted_is_not_stored(storing):
    with pytest.raises(ValueError, match="hush"):
        secret.delay("hush")
    stored = row("secret")
    assert stored.args is None
    assert "hush" not in f"{stored.result} {stored.traceback}"


def test_tasks_that_ignore_their_result_have_no_row(storing):
    ignored.delay()
    with pytest.raises(ValueError, match="no"):
        ignored.delay(works=False)
    add.apply_async((1,), ignore_result=True)
    assert TaskMeta.objects.count() == 0


def test_a_task_that_ignores_itself_has_no_row(storing):
    ignores.delay()
    assert TaskMeta.objects.count() == 0


def test_the_start_is_stored_where_it_is_tracked(storing):
    assert tracked.delay().get() is True
    assert seen == ["STARTED"]
    assert row("tracked").status == "SUCCESS"


def test_relatives_are_stored(storing):
    result = parent.delay()
    assert (row("add").parent_id, row("add").root_id) == (result.id, result.id)
    assert [child.id for child in storing.AsyncResult(result.id).children] == [row("add").task_id]


def test_a_value_that_cannot_be_stored_fails_as_with_a_worker(storing):
    with pytest.raises(EncodeError, match="not JSON serializable"):
        unstorable.delay()
    assert row("unstorable").status == "FAILURE"


def test_tasks_that_are_defined_by_a_test_are_stored_too(storing):
    @storing.task(name="runner.late", shared=False)
    def late():
        return 1

    late.delay()
    assert row("late").result == 1


def test_their_storing_ends_with_the_tests(celery_app):
    with stored_eager_tasks():

        @celery_app.task(name="runner.later", shared=False)
        def late():
            return 1

        assert late.store_eager_result is True
    assert late.store_eager_result is False


@pytest.mark.usefixtures("db")
def test_nothing_is_stored_afterwards(celery_app):
    with stored_eager_tasks():
        pass
    celery_app.conf.task_always_eager = True
    with pytest.raises(CommandError):
        fail.delay("x").get()
    assert TaskMeta.objects.count() == 0


# manage.py test


SETTINGS = """
import os

SECRET_KEY = "x"
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "djcelery", "shop"]
# Nobody listens there: what is sent fails.
"""
FILES = {
    "manage.py": """
import multiprocessing
import os
import sys

if __name__ == "__main__":
    if os.environ.get("START_METHOD"):
        multiprocessing.set_start_method(os.environ["START_METHOD"])
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
""",
    "legacy.py": f"""
import djcelery
djcelery.setup_loader()
{SETTINGS}
BROKER_URL = "amqp://127.0.0.1:1//"
CELERYD_CONCURRENCY = 1
""",
    "modern/settings.py": f"""{SETTINGS}
CELERY_BROKER_URL = "amqp://127.0.0.1:1//"
CELERY_RESULT_BACKEND = "redis://127.0.0.1:1"
CELERY_TASK_ALWAYS_EAGER = False
CELERY_WORKER_CONCURRENCY = 1
""",
    "modern/__init__.py": "from modern.celery import app as celery_app\n",
    "modern/celery.py": """
from celery import Celery

app = Celery("modern")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
""",
    "shop/__init__.py": "",
    "shop/tasks.py": """
from celery import shared_task

@shared_task
def add(x, y):
    return x + y

@shared_task
def fail():
    raise ValueError("sold out")
""",
    "shop/tests.py": """
import os
from pathlib import Path

from celery import current_app
from django.conf import settings
from django.test import TestCase

from djcelery.models import TaskMeta
from shop.tasks import add, fail

STORED = "Storing" in os.environ["RUNNER"]


class Checks:
    def test_settings_and_app_are_eager(self):
        self.assertTrue(settings.CELERY_ALWAYS_EAGER and settings.CELERY_TASK_ALWAYS_EAGER)
        self.assertTrue(current_app.conf.task_always_eager and current_app.conf.task_eager_propagates)

    def test_tasks_run(self):
        with open(os.environ["PIDS"], "a") as out:
            out.write(f"{os.getpid()}\\n")
        self.assertEqual(add.delay(2, 2).get(), 4)
        with self.assertRaises(ValueError):
            fail.delay()
        found = sorted(TaskMeta.objects.values_list("name", "status"))
        stored = [("shop.tasks.add", "SUCCESS"), ("shop.tasks.fail", "FAILURE")]
        self.assertEqual(found, stored if STORED else [])


class FirstTests(Checks, TestCase):
    pass


class SecondTests(Checks, TestCase):
    pass
""",
    "undone.py": """
import os
import sys

import django
from django.conf import settings
from django.utils.module_loading import import_string

django.setup()
from djcelery.app import project_app
from shop.tasks import add

app = project_app()
add.name

def state():
    task = app.tasks["shop.tasks.add"]
    return dict(app.conf.changes), app.conf.result_backend, settings._wrapped, "store_eager_result" in vars(task)

before = state()
runner = import_string(os.environ["RUNNER"])(verbosity=0)
assert runner.run_tests(["shop"]) == 0
assert state() == before, (before, state())
assert app.conf.task_always_eager is False
assert not hasattr(settings, "CELERY_ALWAYS_EAGER")
print("undone")
""",
}
RUNNERS = [
    "djcelery.contrib.test_runner.CeleryTestSuiteRunner",
    "djcelery.contrib.test_runner.CeleryTestSuiteRunnerStoringResult",
]


@pytest.fixture
def run(tmp_path):
    """A function that runs a script of a small project."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def run(runner, settings_module, *words, **env):
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
            "DJANGO_SETTINGS_MODULE": settings_module,
            "PIDS": str(tmp_path / "pids"),
            "RUNNER": runner,
            **env,
        }
        done = subprocess.run(
            [sys.executable, "-W", "error::DeprecationWarning:djcelery", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done, (tmp_path / "pids").read_text().split()

    return run


@pytest.mark.integration
@pytest.mark.long
@pytest.mark.parametrize("module", ["legacy", "modern.settings"])
@pytest.mark.parametrize("runner", RUNNERS, ids=["eager", "storing"])
def test_a_run_of_tests_is_eager_and_leaves_nothing_behind(run, runner, module):
    done, pids = run(runner, module, "undone.py")
    assert "undone" in done.stdout
    assert len(pids) == 2


@pytest.mark.integration
@pytest.mark.parametrize(
    ("runner", "module", "method"),
    [(RUNNERS[0], "legacy", "spawn"), (RUNNERS[1], "modern.settings", "spawn"), (RUNNERS[1], "legacy", "fork")],
    ids=["eager-legacy-spawn", "storing-modern-spawn", "storing-legacy-fork"],
)
@pytest.mark.long
def test_parallel_processes_are_eager_too(run, runner, module, method):
    done, pids = run(
        runner, module, "manage.py", "test", "--testrunner", runner, "--parallel", "2", START_METHOD=method
    )
    assert "Ran 4 tests" in done.stderr
    assert len(pids) == 2


@pytest.mark.long
@pytest.mark.integration
def test_manage_py_test_takes_the_runner(run):
    done, _ = run(RUNNERS[0], "modern.settings", "manage.py", "test", "--testrunner", RUNNERS[0])
    assert "Ran 4 tests" in done.stderr


# the manual

PAGE = ROOT / "docs" / "testing.rst"


def examples() -> dict[str, str]:
    """Return the files of the manual's page, by the name in their first line."""
    found = {}
    for block in re.findall(r"\.\. code-block:: python\n\n((?:   .*\n|\n)+)", PAGE.read_text()):
        text = textwrap.dedent(block)
        if text.startswith("# "):
            found[text.partition("\n")[0].removeprefix("# ")] = text
    return found


@pytest.mark.integration
@pytest.mark.long
def test_the_examples_of_the_manual_run(run, tmp_path):
    files = examples()
    assert len(files) == 8
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "pids").touch()
    done, _ = run("", "modern.settings", "manage.py", "test", "shop.tests", "--testrunner", RUNNERS[0])
    assert "Ran 2 tests" in done.stderr
    done, _ = run("", "modern.settings", "manage.py", "test", "shop.tests_storing", "--testrunner", RUNNERS[1])
    assert "Ran 2 tests" in done.stderr
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist")
    done, _ = run("", "modern.settings", *words, *sorted(name for name in files if "test_" in name))
    assert "8 passed" in done.stdout

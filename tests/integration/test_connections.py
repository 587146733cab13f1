"""Database connections of real workers: kept, counted, replaced after the server ended them."""

from __future__ import annotations

import json
import os
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from tests import services
from tests.services import wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.parametrize("broker", ["redis"], indirect=True),
]

TASKS = 60


class Postgres:
    """A PostgreSQL database of the test's own."""

    def __init__(self, name):
        self.name = name
        self.admin = services.postgres()
        self.admin.execute(f"CREATE DATABASE {name}")
        self.url = urlsplit(services.POSTGRES_URL)._replace(path=f"/{name}").geturl()

    def ask(self, query):
        import psycopg

        with psycopg.connect(self.url, autocommit=True, application_name="test") as connection:
            return connection.execute(query).fetchall()

    def sessions(self):
        """Return the server's processes that serve this database's clients."""
        rows = self.admin.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name <> 'test'", [self.name]
        )
        return [pid for (pid,) in rows.fetchall()]

    def end(self, session):
        self.admin.execute("SELECT pg_terminate_backend(%s)", [session])

    def close(self):
        self.admin.execute(f"DROP DATABASE {self.name} WITH (FORCE)")
        self.admin.close()


class Mariadb:
    """A MariaDB database of the test's own."""

    def __init__(self, name):
        self.name = name
        self.admin = services.mariadb()
        self.ask(f"CREATE DATABASE {name}")
        self.url = urlsplit(services.MARIADB_URL)._replace(path=f"/{name}").geturl()

    def ask(self, query):
        with closing(self.admin.cursor()) as cursor:
            cursor.execute(query.replace("celery_taskmeta", f"{self.name}.celery_taskmeta"))
            return cursor.fetchall()

    def sessions(self):
        return [row[0] for row in self.ask(f"SELECT id FROM information_schema.processlist WHERE db = '{self.name}'")]

    def end(self, session):
        try:
            self.ask(f"KILL {session}")
        except Exception as exc:  # the client's error type is not imported here
            if exc.args[0] != 1094:  # gone already
                raise

    def close(self):
        self.ask(f"DROP DATABASE {self.name}")
        self.admin.close()


@pytest.fixture(params=[Postgres, Mariadb], ids=["postgresql", "mariadb"])
def server(request, programs):
    made = request.param(f"djcelery_test_{os.getpid()}")
    programs.env["DATABASE_URL"] = made.url
    programs.env["DJANGO_SETTINGS_MODULE"] = "legacyproj.settings"
    migrated = programs.run("migrate", "-v0")
    assert migrated.returncode == 0, migrated.stderr
    yield made
    programs.kill()
    made.close()


def send(programs, count, task="shop.tasks.add"):
    """Send *count* tasks from one process."""
    code = (
        f"from djcelery.app import app; import json\n"
        f"print(json.dumps([app.send_task('{task}', (n, 1)).id for n in range({count})]))"
    )
    done = programs.run("shell", "-v0", "-c", code)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def successes(server):
    return server.ask("SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'")[0][0]


def test_no_result_is_lost_when_the_server_ends_connections(programs, server):
    worker = programs.start("celeryd", "-c", "2", "-l", "info", ready="ready.")
    send(programs, 2)
    wait_until(lambda: successes(server) == 2, 60, "the first results")
    send(programs, TASKS)

    # Not faster than a slow machine connects: no result could be stored then.
    while (before := successes(server)) < TASKS + 2:
        for session in server.sessions():
            server.end(session)
        wait_until(lambda before=before: successes(server) > before, 60, "one more result")
    assert worker.stop() == 0


def test_a_worker_process_keeps_one_connection_for_results(programs, server):
    programs.start("celeryd", "-c", "2", "-l", "info", ready="ready.")
    send(programs, TASKS)
    wait_until(lambda: successes(server) == TASKS, 60, "every result")
    kept = set(server.sessions())
    assert 1 <= len(kept) <= 2
    send(programs, TASKS)
    wait_until(lambda: successes(server) == 2 * TASKS, 60, "every result")
    assert kept <= set(server.sessions())
    assert len(server.sessions()) <= 2


def test_a_project_can_give_up_the_kept_connection(programs, server):
    programs.start("celeryd", "-c", "2", "-l", "info", ready="ready.", KEEP_RESULT_CONNECTION="0")
    send(programs, TASKS)
    wait_until(lambda: successes(server) == TASKS, 60, "every result")
    wait_until(lambda: server.sessions() == [], 60, "all connections to be closed")


def test_connections_that_the_project_keeps_serve_results_and_are_not_doubled(programs, server):
    programs.start("celeryd", "-c", "2", "-l", "info", ready="ready.", CONN_MAX_AGE="600")
    send(programs, TASKS, "shop.tasks.count_rows")
    wait_until(lambda: successes(server) == TASKS, 60, "every result")
    assert 1 <= len(server.sessions()) <= 2


def test_health_checks_replace_a_connection_that_the_project_keeps(programs, server):
    programs.start("celeryd", "-c", "2", "-l", "info", ready="ready.", CONN_MAX_AGE="600", CONN_HEALTH_CHECKS="1")
    send(programs, TASKS, "shop.tasks.count_rows")
    wait_until(lambda: successes(server) == TASKS, 60, "every result")
    for session in server.sessions():
        server.end(session)
    send(programs, TASKS, "shop.tasks.count_rows")
    wait_until(lambda: successes(server) == 2 * TASKS, 60, "every result after the connections were ended")


def test_a_tasks_own_connection_is_closed_after_it_where_the_project_keeps_none(programs, server):
    programs.start("celeryd", "-c", "1", "-l", "info", ready="ready.")
    send(programs, 5, "shop.tasks.count_rows")
    wait_until(lambda: successes(server) == 5, 60, "every result")
    wait_until(lambda: len(server.sessions()) == 1, 60, "only the connection for results to be open")


def test_beat_and_camera_replace_a_connection_that_the_server_ended(programs, server):
    worker = programs.start("celeryd", "-E", "-l", "info", ready="ready.")
    camera = programs.start("celerycam", "-f", "0.3", ready="Taking snapshots")
    programs.run(
        "shell",
        "-c",
        "from djcelery.schedulers import DatabaseScheduler as S; "
        "S.create_or_update_task('every second', task='shop.tasks.noop', schedule=1)",
    )
    beat = programs.start("celerybeat", "-S", "djcelery.schedulers.DatabaseScheduler", ready="Sending due task")

    def monitored():
        return server.ask("SELECT count(*) FROM celery_taskmeta")[0][0]

    for _ in range(3):
        for session in server.sessions():
            server.end(session)
        before = monitored()
        wait_until(lambda before=before: monitored() > before + 1, 60, "two more firings")
    for program in (beat, camera, worker):
        assert program.popen.poll() is None
        assert program.stop() == 0


def test_pools_are_kept_and_survive_the_end_of_their_connections(programs, server):
    if isinstance(server, Mariadb):
        pytest.skip("Django has pools for PostgreSQL only")
    pytest.importorskip("psycopg_pool")
    options = json.dumps({"pool": {"min_size": 1, "max_size": 1, "timeout": 10}})
    worker = programs.start("celeryd", "-c", "2", "-l", "info", ready="ready.", DATABASE_OPTIONS=options)
    send(programs, TASKS, "shop.tasks.count_rows")
    wait_until(lambda: successes(server) == TASKS, 60, "every result")
    kept = set(server.sessions())
    assert 1 <= len(kept) <= 2
    send(programs, TASKS, "shop.tasks.count_rows")
    wait_until(lambda: successes(server) == 2 * TASKS, 60, "every result")
    assert kept <= set(server.sessions())
    for session in kept:
        server.end(session)
    send(programs, TASKS)
    wait_until(lambda: successes(server) == 3 * TASKS, 60, "every result after the connections were ended")
    assert worker.stop() == 0

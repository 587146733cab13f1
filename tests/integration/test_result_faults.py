"""Results when things go wrong: processes killed, databases away, limits, revocations, deliveries that come twice.

The long forms of the storms are ``make faults``.
"""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.faults import engines, storms
from tests.services import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.long]

COLUMNS = (
    *("status", "name", "args", "worker", "queue", "retries", "created", "started", "finished"),
    *("result", "traceback", "progress"),
)


@pytest.fixture
def broker(request):
    """Redis, unless a test asks for another: remote control needs a fast broker."""
    return getattr(request, "param", "redis")


def made(kind, programs):
    """Return a migrated database of the test's own."""
    if kind == "sqlite":
        return engines.Sqlite(programs.root / "db.sqlite3")
    engine = {"postgresql": engines.Postgres, "mariadb": engines.Mariadb}[kind](f"djcelery_test_{os.getpid()}")
    prepare(programs, engine)
    return engine


def prepare(programs, engine):
    programs.env |= {"DATABASE_URL": engine.url, "DJANGO_SETTINGS_MODULE": "legacyproj.faults"}
    migrated = programs.run("migrate", "-v0")
    assert migrated.returncode == 0, migrated.stderr


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def engine(request, programs):
    with storms.closing_after(programs, made(request.param, programs)) as engine:
        programs.env |= {"DATABASE_URL": engine.url, "DJANGO_SETTINGS_MODULE": "legacyproj.faults"}
        yield engine


@pytest.fixture
def private_server(programs):
    """A PostgreSQL server that the test may stop."""
    server = engines.PostgresServer()
    try:
        server.database = server.engine("faults", server.url)
        prepare(programs, server.database)
        yield server
    finally:
        programs.kill()
        server.close()


def ask_project(programs, code):
    """Run *code*, which has ``app``, in a process of the project; return what it prints last, from JSON."""
    done = programs.run("shell", "-v0", "-c", f"from djcelery.app import app; import json\n{code}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def send(programs, *tasks):
    """Send tasks, given as (name, args, options), from one process; return their ids."""
    code = f"tasks = json.loads({json.dumps(json.dumps(tasks))})\n"
    return ask_project(
        programs,
        code + "print(json.dumps([app.send_task('shop.faulty.' + n, a, **o).id for n, a, o in tasks]))",
    )


def start_worker(programs, **settings):
    env = {"FAULT_SETTINGS": json.dumps(settings)}
    return programs.start("celeryd", "-c", "2", "-l", "info", "-n", "w@faults", ready="ready.", **env)


def row(engine, task_id):
    """Return the row of *task_id* as a dictionary, None if there is none or the database is away."""
    try:
        found = engine.ask(f"SELECT {', '.join(COLUMNS)} FROM celery_taskmeta WHERE task_id = '{task_id}'")
    except Exception as exc:
        if type(exc).__name__ == "OperationalError":
            return None
        raise
    if not found:
        return None
    values = dict(zip(COLUMNS, found[0], strict=True))
    for name in ("args", "progress"):
        if isinstance(values[name], str):
            values[name] = json.loads(values[name])
    return values


def wait_for(engine, task_id, *states, timeout_s=60):
    def found():
        values = row(engine, task_id)
        return values if values and values["status"] in states else None

    return wait_until(found, timeout_s, f"{task_id} to be {' or '.join(states)}")


# -- storms, short ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "broker"),
    [("postgresql", "rabbitmq"), ("sqlite", "redis")],
    indirect=["broker"],
)
def test_every_task_ends_though_workers_and_pool_processes_are_killed(programs, kind, broker):
    with storms.closing_after(programs, made(kind, programs)) as engine:
        report = storms.storm(
            programs,
            engine,
            title=f"{kind}, {broker}",
            tasks=400,
            seed=11,
            faults=storms.kills(5, 1),
            die_storing=0.04,
            quiet_s=25,
        )
    assert report.torn == []
    assert report.lost == 0, report
    assert report.never_received <= (report.worker_kills if broker == "redis" else 0), report
    assert report.store_kills >= 3, report


@pytest.mark.parametrize("server_type", [engines.PostgresServer, engines.MariadbServer])
def test_no_result_is_lost_when_the_database_restarts_under_load(programs, server_type):
    server = server_type()
    try:
        engine = server.engine("faults", server.url)
        faults = storms.restarts(server, 2, away_s=(0.1, 0.3))
        report = storms.storm(
            programs, engine, title=engine.label, tasks=300, seed=5, faults=faults, acks="early", workers=1, quiet_s=25
        )
    finally:
        programs.kill()
        server.close()
    assert (report.final, report.lost, report.torn, report.restarts) == (300, 0, [], 2), report


# -- the database is away -----------------------------------------------------------------------


def test_a_revoked_task_and_a_time_limit_neither_end_nor_stop_a_worker_without_database(programs, private_server):
    worker = start_worker(programs)
    database = private_server.database
    first, hung, lost = send(
        programs, ("work", [2], {}), ("hang", [60], {"time_limit": 3}), ("hang", [300, "never"], {})
    )
    wait_for(database, first, "SUCCESS")
    worker.wait_for(f"[{lost}] received")
    pool = storms.children(worker.pid)
    private_server.stop(signal.SIGQUIT)
    expired, ended = send(programs, ("work", [3], {"expires": -1}), ("work", [5], {}))
    worker.wait_for(f"Discarding revoked task: shop.faulty.work[{expired}]")
    worker.wait_for(f"Hard time limit (3s) exceeded for shop.faulty.hang[{hung}]")
    for pid in set(pool) & set(storms.children(worker.pid)):
        os.kill(pid, signal.SIGKILL)
    worker.wait_for(f"Could not store state FAILURE of task {lost}")
    # The event loop answers at once, though three outcomes can't be stored.
    pong = programs.run("celery", "inspect", "ping", "-t", "10", "-d", "w@faults")
    assert "pong" in pong.stdout, pong.stdout + pong.stderr
    private_server.start()
    assert wait_for(database, ended, "SUCCESS")["result"] == "25"
    for task_id, status, error in (
        (expired, "REVOKED", "expired"),
        (hung, "FAILURE", "TimeLimitExceeded"),
        (lost, "FAILURE", "WorkerLostError"),
    ):
        values = wait_for(database, task_id, status)
        assert error in values["result"]
        assert values["name"].startswith("shop.faulty.")
        assert values["worker"] == "w@faults"
        assert values["finished"] is not None
    assert worker.stop() == 0


@pytest.mark.parametrize("always_retry", [False, True])
def test_the_projects_setting_decides_what_becomes_of_a_result_when_the_database_stays_away(
    programs, private_server, always_retry
):
    programs.env["STORE_WAITS_S"] = "[0.1, 0.2]"
    worker = start_worker(programs, CELERY_RESULT_BACKEND_ALWAYS_RETRY=always_retry)
    private_server.stop(signal.SIGQUIT)
    stored, revoked = send(programs, ("work", [3], {}), ("work", [4], {"expires": -1}))
    if always_retry:
        worker.wait_for("Failed operation _store_result", times=4)
        private_server.start()
        assert wait_for(private_server.database, stored, "SUCCESS")["result"] == "9"
        wait_for(private_server.database, revoked, "REVOKED")
    else:
        worker.wait_for(f"Task {stored} is in state SUCCESS, but that could not be stored")
        worker.wait_for(f"Task {revoked} is in state REVOKED, but that could not be stored")
        private_server.start()
    (later,) = send(programs, ("work", [6], {}))
    wait_for(private_server.database, later, "SUCCESS")
    assert worker.stop() == 0


def test_a_worker_that_ends_names_the_outcomes_that_it_could_not_store(programs, private_server):
    worker = start_worker(programs)
    private_server.stop(signal.SIGQUIT)
    (expired,) = send(programs, ("work", [3], {"expires": -1}))
    worker.wait_for(f"Could not store state REVOKED of task {expired}")
    assert worker.stop() == 0
    assert f"Task {expired} is in state REVOKED, but that could not be stored: the worker has ended" in worker.text()


# -- ends that are not the task's own -----------------------------------------------------------


@pytest.mark.parametrize("engine", ["mariadb"], indirect=True)
def test_revoked_tasks_time_limits_and_lost_processes_leave_whole_rows(programs, engine):
    worker = start_worker(programs, CELERY_TRACK_STARTED=True)
    soft, hard, died, ran = send(
        programs,
        ("hang", [61], {"soft_time_limit": 1}),
        ("hang", [62], {"time_limit": 1}),
        ("die", [], {}),
        ("hang", [63], {}),
    )
    assert "SoftTimeLimitExceeded" in wait_for(engine, soft, "FAILURE")["traceback"]
    for task_id, error in ((soft, "SoftTimeLimitExceeded"), (hard, "TimeLimitExceeded"), (died, "WorkerLostError")):
        assert error in wait_for(engine, task_id, "FAILURE")["result"]
    wait_for(engine, ran, "STARTED")
    (waits,) = ask_project(
        programs,
        f"app.control.revoke('{ran}', terminate=True)\n"
        "waits = app.send_task('shop.faulty.hang', [64], countdown=3600)\n"
        "print(json.dumps([waits.id]))",
    )
    worker.wait_for(f"[{waits}] received")
    ask_project(programs, f"app.control.revoke(['{waits}', 'early']); print(1)")
    worker.wait_for("Tasks flagged as revoked", times=1)
    send(programs, ("hang", [65], {"task_id": "early"}))
    wait_until(lambda: (row(engine, "early") or {}).get("name"), 60, "the message of a revoked task to come in")
    for task_id, args in ((soft, [61]), (hard, [62]), (died, []), (ran, [63]), (waits, [64]), ("early", [65])):
        values = wait_for(engine, task_id, "FAILURE", "REVOKED")
        assert values["name"].startswith("shop.faulty."), values
        assert (values["args"], values["worker"], values["retries"]) == (args, "w@faults", 0)
        assert values["queue"].endswith("celery")
        assert (values["started"] is None) == (task_id in (waits, "early")), values
        assert str(values["created"])[:19] <= str(values["finished"])[:19]
    assert worker.stop() == 0


# -- more than one write ------------------------------------------------------------------------


def test_a_task_that_is_delivered_again_keeps_the_first_success(programs, engine):
    start_worker(programs, CELERY_TRACK_STARTED=True)
    release = programs.root / "release"
    twice = ["twice", [str(programs.root), str(release)], {"task_id": "delivered-twice"}]
    send(programs, twice)
    wait_for(engine, "delivered-twice", "STARTED")
    send(programs, twice)
    second = wait_for(engine, "delivered-twice", "SUCCESS")
    assert second["result"] == '"second"'
    release.touch()
    # The first run ends after the second, and a third one is started and ends.
    send(programs, twice)
    wait_until(lambda: programs.running[0].text().count("succeeded in") == 3, 60, "three ends")
    assert row(engine, "delivered-twice") == second


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_replaced_and_retried_tasks_have_one_honest_row(programs, engine):
    start_worker(programs, CELERY_TRACK_STARTED=True)
    replaced, again, failed = send(programs, ("replaced", [7], {}), ("again", [2], {}), ("again", [9], {}))
    done = wait_for(engine, replaced, "SUCCESS")
    assert (done["result"], done["name"], done["args"]) == ("49", "shop.faulty.work", [7])
    retried = wait_for(engine, again, "SUCCESS")
    assert (retried["result"], retried["retries"]) == ("2", 2)
    # Two waits of 0.1 s lie between sending and the last start.
    ran = [str(retried[name])[:26] for name in ("created", "started", "finished")]
    assert ran == sorted(ran)
    assert wait_for(engine, failed, "FAILURE")["retries"] == 5
    assert engine.ask("SELECT count(*) FROM celery_taskmeta")[0][0] == 3


def test_progress_from_inside_a_transaction_is_seen_at_once(programs, engine):
    start_worker(programs)
    release = programs.root / "release"
    committed, rolled_back = send(programs, ("progress", [str(release)], {}), ("progress", [str(release), True], {}))
    if engine.label == "SQLite":
        # A second connection would wait for the task's own transaction there.
        assert row(engine, committed) is None
    else:
        for task_id in (committed, rolled_back):
            assert wait_for(engine, task_id, "PROGRESS")["progress"] == {"done": 1, "of": 2}
    release.touch()
    assert wait_for(engine, committed, "SUCCESS")["progress"] == {"done": 1, "of": 2}
    failed = wait_for(engine, rolled_back, "FAILURE")
    assert failed["progress"] == (None if engine.label == "SQLite" else {"done": 1, "of": 2})


# -- other ways to configure the database -------------------------------------------------------


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
def test_repeatable_read_neither_hides_results_nor_fails_writes(programs, engine):
    level = 3 if engine.label == "PostgreSQL" else "repeatable read"
    programs.env["DATABASE_OPTIONS"] = json.dumps({"isolation_level": level})
    start_worker(programs, CELERY_TRACK_STARTED=True)
    values = ask_project(
        programs,
        "results = [app.send_task('shop.faulty.work', [n]) for n in range(5)]\n"
        "print(json.dumps([result.get(timeout=60) for result in results]))",
    )
    assert values == [0, 1, 4, 9, 16]
    send(programs, *[("twice", [str(programs.root), "/"], {"task_id": f"same-{n % 2}"}) for n in range(20)])
    for task_id in ("same-0", "same-1"):
        wait_for(engine, task_id, "SUCCESS")


def test_results_go_where_the_router_says_without_a_default_database(programs):
    engine = engines.Sqlite(programs.root / "db.sqlite3")
    programs.env |= {"DATABASE_URL": engine.url, "DJANGO_SETTINGS_MODULE": "legacyproj.routed"}
    start_worker(programs)
    code = "print(json.dumps([app.send_task('shop.tasks.add', [2, n]).get(timeout=60) for n in range(3)]))"
    assert ask_project(programs, code) == [2, 3, 4]
    assert engine.ask("SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'") == [(3,)]

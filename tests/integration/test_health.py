"""``celery_health`` as supervisors run it: exit status, lines, and an end within the time limit."""

from __future__ import annotations

import socket
import time

import pytest

pytestmark = pytest.mark.integration

BEAT = ("celerybeat", "-S", "djcelery.schedulers.DatabaseScheduler", "--pidfile=", "-l", "info")


def probe(programs, *words, **env):
    done = programs.run("celery_health", *words, **env)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


def test_database_and_broker_are_alive_and_nobody_else_is(programs):
    status, lines = probe(programs, "database", "broker")
    assert status == 0
    assert [line.split()[:2] for line in lines] == [["ok", "database"], ["ok", "broker"]]
    status, lines = probe(programs)
    assert status == 1
    assert [line.split()[:2] for line in lines[2:]] == [["fail", "worker"], ["fail", "beat"], ["fail", "camera"]]


def test_a_beat_is_alive_while_it_leads(programs):
    beat = programs.start(*BEAT, ready="beat: leading")
    status, (line,) = probe(programs, "beat", "--max-age", "15")
    assert status == 0, line
    assert f":{beat.pid} " in line
    assert beat.stop() == 0
    status, (line,) = probe(programs, "beat")
    assert status == 1
    assert 'reason="nobody leads"' in line


def test_a_broker_that_accepts_and_never_answers_is_not_waited_for(programs):
    pytest.importorskip("redis")
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        started = time.monotonic()
        status, lines = probe(programs, "broker", "database", "--timeout", "3", BROKER_URL=url)
        # The program's start is in it.
        assert time.monotonic() - started < 60
    assert status == 1
    assert lines[0] == 'fail broker reason="no answer within 3 s"'
    assert lines[1].startswith("ok database")


def test_a_database_that_is_away_is_not_alive(programs):
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        nowhere = "sqlite:////nowhere/at/all/db.sqlite3"
    status, (line,) = probe(programs, "database", DATABASE_URL=nowhere)
    assert status == 1
    assert line.startswith("fail database reason=")


def test_wrong_words_end_with_status_two(programs):
    assert probe(programs, "nobody")[0] == 2
    assert probe(programs, "beat", "--max-age", "0")[0] == 2

"""The long form of the fault tests: ``make faults``, or ``python -m tests.faults --help``.

Workers are killed while they store, beats while they send, and databases restarted under load; each line of the
report counts tasks, faults and losses. Ends with status 1 if a row is torn, a firing has two ids, or anything was
lost that may not be.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults import beats, engines, storms
from tests.integration.conftest import PROJECT, Programs, _clean, broker_env

TASKS = 5000
MINUTES, ENTRIES = 5.0, 500


@contextmanager
def programs(broker: str) -> Iterator[Programs]:
    """Yield what starts programs, in a folder of its own with a migrated SQLite file."""
    root = Path(tempfile.mkdtemp(prefix="djcelery-faults-"))
    env = {"PATH": os.environ["PATH"], "DATABASE_URL": f"sqlite:///{root / 'db.sqlite3'}"}
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=PROJECT, env=env, check=True)
    started = Programs(root, broker_env(broker))
    try:
        yield started
    finally:
        started.kill()
        _clean(broker, started.env["BROKER_PREFIX"])
        shutil.rmtree(root)


def engine_of(kind: str, started: Programs) -> Any:
    """Return a database of our own on this machine's server."""
    name = f"djcelery_faults_{os.getpid()}"
    if kind == "sqlite":
        return engines.Sqlite(started.root / "db.sqlite3")
    return {"postgresql": engines.Postgres, "mariadb": engines.Mariadb}[kind](name)


def kill_storm(kind: str, broker: str, acks: str, tasks: int, seed: int) -> storms.Report:
    """Kill pool processes and workers at random moments."""
    with programs(broker) as started, storms.closing_after(started, engine_of(kind, started)) as engine:
        return storms.storm(
            started,
            engine,
            title=f"kills, {engine.label}, {broker}",
            tasks=tasks,
            seed=seed,
            acks=acks,
            faults=storms.kills(pool=tasks // 50, workers=max(2, tasks // 250)),
            pauses_s=(0.01, 0.2),
            die_storing=0.02,
        )


def restart_storm(server_type: Any, tasks: int, seed: int) -> storms.Report:
    """Kill and restart the database's server."""
    server = server_type()
    try:
        with programs("redis") as started:
            engine = server.engine("djcelery_faults", server.url)
            with storms.closing_after(started, engine):
                faults = storms.restarts(server, max(3, tasks // 500))
                title = f"restarts, {engine.label}, redis"
                return storms.storm(
                    started, engine, title=title, tasks=tasks, seed=seed, faults=faults, acks="early", pauses_s=(0.3, 2)
                )
    finally:
        server.close()


def connection_storm(kind: str, tasks: int, seed: int) -> storms.Report:
    """Have the server end all connections."""
    with programs("redis") as started, storms.closing_after(started, engine_of(kind, started)) as engine:
        faults = storms.connection_kills(engine, tasks // 50)
        title = f"connections ended, {engine.label}, redis"
        return storms.storm(
            started, engine, title=title, tasks=tasks, seed=seed, faults=faults, acks="early", pauses_s=(0.05, 0.3)
        )


def beat_storm(kind: str, minutes: float, entries: int, seed: int) -> beats.Report:
    """Kill and freeze beats; restart the broker, and the database if it is a server."""
    server = {"postgresql": engines.PostgresServer, "mariadb": engines.MariadbServer}.get(kind, lambda: None)()
    broker = engines.RedisServer()
    try:
        with programs("redis") as started:
            engine = server.engine("djcelery_faults", server.url) if server else engine_of(kind, started)
            with storms.closing_after(started, engine):
                return beats.storm(
                    started,
                    engine,
                    broker,
                    title=f"beats, {engine.label}",
                    seed=seed,
                    duration_s=minutes * 60,
                    entry_count=entries,
                    beats=3 if server else 2,
                    server=server,
                )
    finally:
        broker.close()
        if server:
            server.close()


def beat_plan(minutes: float, entries: int, seed: int) -> list[tuple[str, Callable[[], beats.Report]]]:
    """Return the storms of beats; on MariaDB and SQLite a fifth as long."""
    lengths = {"postgresql": minutes, "mariadb": minutes / 5, "sqlite": minutes / 5}
    return [
        (f"beats-{kind}", lambda k=kind, m=length: beat_storm(k, m, entries, seed))  # type: ignore[misc]
        for kind, length in lengths.items()
    ]


def plan(tasks: int, seed: int) -> list[tuple[str, bool, Callable[[], storms.Report]]]:
    """Return the storms: a name, whether tasks may be lost, and a function that lets it loose."""
    found: list[tuple[str, bool, Callable[[], storms.Report]]] = []
    for acks, kinds in (("late", ("postgresql", "mariadb", "sqlite")), ("early", ("postgresql",))):
        for kind in kinds:
            for broker in ("redis", "rabbitmq"):
                name = f"kills-{kind}-{broker}-{acks}"
                found.append(
                    (name, acks == "early", lambda k=kind, b=broker, a=acks: kill_storm(k, b, a, tasks, seed))  # type: ignore[misc]
                )
    for server in (engines.PostgresServer, engines.MariadbServer):
        label = server.engine.label.lower()
        found.append((f"restarts-{label}", False, lambda s=server: restart_storm(s, tasks, seed)))  # type: ignore[misc]
        found.append((f"connections-{label}", False, lambda k=label: connection_storm(k, tasks, seed)))  # type: ignore[misc]
    return found


def say(*lines: str) -> None:
    """Print the lines at once: a storm takes a minute."""
    sys.stdout.write("\n        ".join(lines) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Let loose the storms that were asked for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--tasks", type=int, default=TASKS, help="tasks per storm")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="of the moments and victims")
    parser.add_argument("names", nargs="*", help="storms whose name contains one of these words (all)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of the beats' storm on PostgreSQL (5)")
    parser.add_argument("--entries", type=int, default=ENTRIES, help="of the beats' schedule (500)")
    options = parser.parse_args()
    bad = 0
    for name, is_bad, let_loose in all_storms(options):
        if options.names and not any(word in name for word in options.names):
            continue
        try:
            report = let_loose()
        except pytest.skip.Exception as exc:
            say(f"{name}: skipped, {exc}")
            continue
        failed = is_bad(report)
        bad += failed
        say(f"{'FAILED' if failed else 'ok'}  {report}", *examples(report)[:5])
    return 1 if bad else 0


def examples(report: Any) -> list[str]:
    """Return what is wrong, one text each."""
    return report.ended + report.examples if isinstance(report, beats.Report) else report.torn


def all_storms(options: argparse.Namespace) -> Iterator[tuple[str, Callable[[Any], bool], Callable[[], Any]]]:
    """Yield the storms: a name, what tells of a report whether it is bad, and what lets it loose."""
    for name, may_lose, let_loose in plan(options.tasks, options.seed):

        def is_bad(report: storms.Report, name: str = name, may_lose: bool = may_lose) -> bool:
            broker_may_lose = report.worker_kills if "redis" in name else 0
            return bool(report.torn) or report.never_received > broker_may_lose or (report.lost > 0 and not may_lose)

        yield name, is_bad, let_loose
    for name, loose in beat_plan(options.minutes, options.entries, options.seed):
        yield name, lambda report: report.failed, loose


if __name__ == "__main__":
    sys.exit(main())

"""Servers for the fault tests: a database of the test's own on this machine's, or a server of its own to restart."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests import services
from tests.services import wait_until


class Sqlite:
    """The file of ``Programs``, in WAL mode."""

    label = "SQLite"

    def __init__(self, path: Path):
        self.path = path
        self.url = f"sqlite:///{path}"
        self.ask("PRAGMA journal_mode=WAL")

    def ask(self, query: str) -> list[tuple]:
        with closing(sqlite3.connect(self.path, timeout=30)) as connection:
            return connection.execute(query).fetchall()

    def close(self) -> None:
        pass


class Postgres:
    """A PostgreSQL database of the test's own, on the server of this machine or a private one."""

    label = "PostgreSQL"

    def __init__(self, name: str, url: str = services.POSTGRES_URL):
        # Before its client is imported: without one the test is skipped.
        if url == services.POSTGRES_URL:
            services.postgres().close()
        import psycopg

        self.name, self.server_url = name, url
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        self.url = urlsplit(url)._replace(path=f"/{name}").geturl()

    def ask(self, query: str) -> list[tuple]:
        import psycopg

        with psycopg.connect(self.url, autocommit=True, application_name="test") as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    def sessions(self) -> list[int]:
        return [
            pid
            for (pid,) in self.ask(
                f"SELECT pid FROM pg_stat_activity WHERE datname = '{self.name}' AND application_name <> 'test'"
            )
        ]

    def end(self, session: int) -> None:
        self.ask(f"SELECT pg_terminate_backend({session})")

    def close(self) -> None:
        import psycopg

        with psycopg.connect(self.server_url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {self.name} WITH (FORCE)")


class Mariadb:
    """A MariaDB database of the test's own, on the server of this machine or a private one."""

    label = "MariaDB"

    def __init__(self, name: str, url: str = services.MARIADB_URL):
        self.name, self.server = name, urlsplit(url)
        if url == services.MARIADB_URL:
            services.mariadb().close()
        self._ask(f"CREATE DATABASE {name} CHARACTER SET utf8mb4", "")
        self.url = self.server._replace(path=f"/{name}").geturl()

    def _ask(self, query: str, database: str) -> list[tuple]:
        import MySQLdb

        connected = MySQLdb.connect(
            host=self.server.hostname,
            port=self.server.port or 3306,
            user=self.server.username,
            password=self.server.password or "",
            database=database,
            autocommit=True,
            charset="utf8mb4",
        )
        with closing(connected), closing(connected.cursor()) as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def ask(self, query: str) -> list[tuple]:
        return self._ask(query, self.name)

    def sessions(self) -> list[int]:
        rows = self._ask(f"SELECT id FROM information_schema.processlist WHERE db = '{self.name}'", "")
        return [row[0] for row in rows]

    def end(self, session: int) -> None:
        try:
            self._ask(f"KILL {session}", "")
        except Exception as exc:  # the client's error type is not imported here
            if exc.args[0] != 1094:  # gone already
                raise

    def close(self) -> None:
        self._ask(f"DROP DATABASE {self.name}", "")


# -- servers of our own ------------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _as(user: str) -> list[str]:
    """Return the prefix that runs a command as *user*: servers refuse to run as root."""
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if os.geteuid() == 0 else []


def _program(*patterns: str) -> str:
    for pattern in patterns:
        found = [shutil.which(pattern)] if "/" not in pattern else sorted(map(str, Path("/").glob(pattern.lstrip("/"))))
        if found and found[-1]:
            return found[-1]
    services.require(patterns[0], lambda: (_ for _ in ()).throw(OSError(f"{patterns[0]} is not installed")))
    raise AssertionError("unreachable")


class _Server:
    """A server of our own in a temporary folder, which may be killed and started again."""

    user = ""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="djcelery-faults-"))
        self.data = self.folder / "data"
        self.port = _free_port()
        self.restarts = 0
        if os.geteuid() == 0:
            shutil.chown(self.folder, self.user, self.user)
        self._initialise()
        self._log = (self.folder / "log").open("ab")
        self.start()

    def start(self) -> None:
        self._popen = subprocess.Popen(
            [*_as(self.user), *self._command()], stdout=self._log, stderr=self._log, start_new_session=True
        )
        wait_until(self.answers, 60, f"{type(self).__name__} to answer")

    def stop(self, number: signal.Signals) -> None:
        """End it by a signal: SIGKILL is a crash of the machine, the others are the server's own ways."""
        os.killpg(self._popen.pid, number) if number == signal.SIGKILL else self._popen.send_signal(number)
        self._popen.wait(60)
        self.restarts += 1

    def answers(self) -> bool:
        with closing(socket.socket()) as client:
            if client.connect_ex(("127.0.0.1", self.port)):
                return False
        try:
            self._ping()
        except Exception:  # noqa: BLE001 - starting, or recovering; each client has errors of its own
            return False
        return True

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait(60)
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class PostgresServer(_Server):
    """PostgreSQL: SIGQUIT is ``pg_ctl stop -m immediate``, SIGINT a fast one."""

    user = "postgres"
    engine = Postgres
    ways = (signal.SIGKILL, signal.SIGQUIT, signal.SIGINT)

    def _initialise(self) -> None:
        initdb = _program("/usr/lib/postgresql/*/bin/initdb", "initdb")
        self._binary = str(Path(initdb).with_name("postgres"))
        words = [initdb, "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]
        subprocess.run([*_as(self.user), *words], check=True, capture_output=True)
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def _command(self) -> list[str]:
        return [self._binary, "-D", str(self.data), "-p", str(self.port), "-k", str(self.folder), "-h", "127.0.0.1"]

    def _ping(self) -> None:
        import psycopg

        psycopg.connect(self.url, connect_timeout=5).close()


class MariadbServer(_Server):
    """MariaDB: SIGTERM is an orderly shutdown."""

    user = "mysql"
    engine = Mariadb
    ways = (signal.SIGKILL, signal.SIGTERM)

    def _initialise(self) -> None:
        install = _program("mariadb-install-db")
        self._binary = _program("mariadbd", "/usr/sbin/mariadbd")
        words = [install, "--no-defaults", f"--datadir={self.data}", "--auth-root-authentication-method=normal"]
        subprocess.run([*_as(self.user), *words], check=True, capture_output=True)
        self.url = f"mysql://root@127.0.0.1:{self.port}/mysql"

    def _command(self) -> list[str]:
        words = [
            f"--datadir={self.data}",
            f"--port={self.port}",
            f"--socket={self.folder}/s",
            "--bind-address=127.0.0.1",
        ]
        return [self._binary, "--no-defaults", *words, f"--pid-file={self.folder}/pid"]

    def _ping(self) -> None:
        import MySQLdb

        MySQLdb.connect(host="127.0.0.1", port=self.port, user="root", connect_timeout=5).close()


class RedisServer(_Server):
    """Redis that has on disk what it has confirmed, so that a message which is missing was never sent."""

    user = "root"
    ways = (signal.SIGKILL, signal.SIGTERM)

    def _initialise(self) -> None:
        self._binary = _program("redis-server")
        self.data.mkdir()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def _command(self) -> list[str]:
        words = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.data), "--save", ""]
        return [self._binary, *words, "--appendonly", "yes", "--appendfsync", "always"]

    def client(self) -> Any:
        import redis

        return redis.Redis(port=self.port)

    def _ping(self) -> None:
        with closing(self.client()) as client:
            client.ping()


class RabbitmqServer(_Server):
    """RabbitMQ, a node of its own beside the machine's; SIGTERM is an orderly shutdown."""

    user = "rabbitmq"
    ways = (signal.SIGKILL, signal.SIGTERM)

    def _initialise(self) -> None:
        self._binary = _program("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server")
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        files = {"MNESIA_BASE": self.data, "LOG_BASE": self.folder / "logs", "CONFIG_FILE": self.folder / "none"}
        files |= {"CONF_ENV_FILE": self.folder / "none", "ENABLED_PLUGINS_FILE": self.folder / "plugins"}
        names = {"NODENAME": f"djcelery{self.port}@localhost", "NODE_IP_ADDRESS": "127.0.0.1", "LOGS": "-"}
        ports = {"NODE_PORT": self.port, "DIST_PORT": _free_port()}
        values = {f"RABBITMQ_{name}": str(value) for name, value in (files | names | ports).items()}
        self._env = {"HOME": str(self.folder), "PATH": os.environ["PATH"], **values}

    def _command(self) -> list[str]:
        return ["env", *(f"{name}={value}" for name, value in self._env.items()), self._binary]

    def _ping(self) -> None:
        from kombu import Connection

        with Connection(self.url, connect_timeout=5) as connection:
            connection.connect()

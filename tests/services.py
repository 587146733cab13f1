"""The servers that tests use: where they are, and what happens when one is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")

POSTGRES_URL = os.environ.get("TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
MARIADB_URL = os.environ.get("TEST_MARIADB_URL", "mysql://root@127.0.0.1:3306/test")
REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/9")
MEMCACHED = os.environ.get("TEST_MEMCACHED", "127.0.0.1:11211")
RABBITMQ_URL = os.environ.get("TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")


def require(name: str, connect: Callable[[], T], errors: tuple[type[Exception], ...] = (OSError,)) -> T:
    """Return a live connection to service *name*; skip without it, but fail when CI is set.

    *errors* are the client's own "cannot connect" types (many are not OSError).
    """
    try:
        return connect()
    except (ImportError, *errors) as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{name} is not running here: {exc}")


def wait_until(probe: Callable[[], T], timeout_s: float = 60, what: str = "the condition") -> T:
    """Return the first true value of ``probe()``; fail after *timeout_s* seconds."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"Waited {timeout_s} s in vain for {what}.")
        time.sleep(0.05)


def postgres():
    """Return a psycopg connection in autocommit mode."""

    def connect():
        import psycopg

        return psycopg.connect(POSTGRES_URL, autocommit=True, connect_timeout=5)

    try:
        import psycopg

        errors: tuple[type[Exception], ...] = (psycopg.OperationalError,)
    except ImportError:
        errors = ()
    return require("PostgreSQL", connect, errors)


def mariadb():
    """Return a MySQLdb connection in autocommit mode."""
    from urllib.parse import urlsplit

    parts = urlsplit(MARIADB_URL)

    def connect():
        import MySQLdb

        return MySQLdb.connect(
            host=parts.hostname,
            port=parts.port or 3306,
            user=parts.username,
            password=parts.password or "",
            autocommit=True,
            charset="utf8mb4",
        )

    try:
        import MySQLdb

        errors: tuple[type[Exception], ...] = (MySQLdb.OperationalError,)
    except ImportError:
        errors = ()
    return require("MariaDB", connect, errors)


def redis():
    """Return a client of the Redis database that tests may empty."""

    def connect():
        import redis as redis_py

        client = redis_py.Redis.from_url(REDIS_URL)
        client.ping()
        return client

    try:
        import redis as redis_py

        errors: tuple[type[Exception], ...] = (redis_py.exceptions.ConnectionError,)
    except ImportError:
        errors = ()
    return require("Redis", connect, errors)


def memcached() -> str:
    """Return the address of a memcached that answers."""

    def connect():
        from pymemcache.client.base import Client

        client = Client(MEMCACHED, connect_timeout=5)
        client.version()
        client.close()
        return MEMCACHED

    return require("memcached", connect)


def rabbitmq():
    """Return a kombu connection to RabbitMQ."""

    def connect():
        from kombu import Connection

        connection = Connection(RABBITMQ_URL, connect_timeout=5)
        connection.ensure_connection(max_retries=1, timeout=5)
        return connection

    from kombu.exceptions import OperationalError

    return require("RabbitMQ", connect, (OSError, OperationalError))


def postgres_client(*args: str, **kwargs) -> subprocess.CompletedProcess:
    """Run psql, if it is there."""
    if shutil.which("psql") is None:
        require("psql", lambda: (_ for _ in ()).throw(OSError("psql is not installed")))
    return subprocess.run(["psql", *args], check=True, capture_output=True, text=True, **kwargs)

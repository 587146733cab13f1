"""What the projects' settings take from the environment: DATABASE_URL and BROKER_URL."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from kombu.transport import TRANSPORT_ALIASES


def databases() -> dict:
    """Return DATABASES for DATABASE_URL: ``sqlite:////a/file``, ``postgresql://…`` or ``mysql://…``."""
    parts = urlsplit(os.environ.get("DATABASE_URL", "sqlite:///:memory:"))
    if parts.scheme == "sqlite":
        name = parts.path.removeprefix("/")
        options = {"timeout": 30, "transaction_mode": "IMMEDIATE"}
        return {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": options}}
    engine = {"postgresql": "postgresql", "mysql": "mysql"}[parts.scheme]
    return {
        "default": {
            "CONN_MAX_AGE": int(os.environ.get("CONN_MAX_AGE", "0")),
            "CONN_HEALTH_CHECKS": os.environ.get("CONN_HEALTH_CHECKS") == "1",
            "OPTIONS": json.loads(os.environ.get("DATABASE_OPTIONS", "{}")),
            "ENGINE": f"django.db.backends.{engine}",
            "NAME": parts.path.lstrip("/"),
            "USER": parts.username,
            "PASSWORD": parts.password or "",
            "HOST": parts.hostname,
            "PORT": parts.port or "",
        }
    }


def broker_url() -> str:
    return os.environ.get("BROKER_URL", "memory://")


def broker_options() -> dict:
    """Return BROKER_TRANSPORT_OPTIONS; the filesystem broker keeps its files in BROKER_DIR."""
    if broker_url().startswith("redis"):
        return {"global_keyprefix": prefix()}
    if not broker_url().startswith("filesystem"):
        return {}
    _write_complete_files()
    root = Path(os.environ["BROKER_DIR"])
    messages, control = root / "messages", root / "control"
    for folder in (messages, control):
        folder.mkdir(parents=True, exist_ok=True)
    return {"data_folder_in": str(messages), "data_folder_out": str(messages), "control_folder": str(control)}


def prefix() -> str:
    """Return what keeps this test's queues apart from those of others on the same server."""
    return os.environ.get("BROKER_PREFIX", "")


def _write_complete_files() -> None:
    """Let ``filesystem://`` mean the demo's transport: kombu's own loses a message in two thousand."""
    spec = importlib.util.spec_from_file_location("demo_broker", os.environ["DEMO_BROKER"])
    sys.modules["demo_broker"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    TRANSPORT_ALIASES["filesystem"] = "demo_broker:Transport"

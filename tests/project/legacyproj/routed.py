"""A project without a ``default`` database: a router sends everything to another alias."""

from legacyproj.settings import *  # noqa: F403
from legacyproj.settings import DATABASES as _databases

DATABASES = {"default": {}, "tasks": _databases["default"]}
DATABASE_ROUTERS = ["legacyproj.routed.Router"]


class Router:
    def db_for_read(self, model, **hints):
        return "tasks"

    db_for_write = db_for_read

    def allow_migrate(self, db, app_label, **hints):
        return db == "tasks"

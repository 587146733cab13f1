"""Store results in the ``TaskMeta`` and ``TaskSetMeta`` tables.

Called by Celery in the worker (store) and in any process that asks for a result (fetch).
Writes one row per task id, through ``managers``; rows are deleted by ``cleanup()``.
Next: ``docs/explain/life-of-a-result.rst``.
"""

from __future__ import annotations

import base64
import logging
from typing import Any

from celery import states
from celery.backends.base import BaseBackend
from celery.result import ResultBase, result_from_tuple
from celery.utils.serialization import create_exception_cls, get_pickled_exception
from django.db import router
from django.db.models import ExpressionWrapper, F, TextField
from django.utils.functional import classproperty
from kombu.exceptions import KombuError
from kombu.serialization import loads

from djcelery import db, utils
from djcelery.exceptions import ResultUndecodable
from djcelery.picklefield import PickledObject, Refused, Unreadable, decode_stored

__all__ = ("DatabaseBackend",)

logger = logging.getLogger(__name__)

# What the column decodes by itself: JSON, and pickles by the trust rules, never by kombu.
_OWN_CONTENT_TYPES = (None, "application/json", "application/x-python-serialize")


class DatabaseBackend(BaseBackend):
    """Celery's result backend on the Django ORM, as ``database`` and ``djcelery-db``."""

    create_django_tables = True
    #: Seconds between looks at one result of many, in ``ResultSet.iterate``.
    subpolling_interval = 0.5
    persistent = True

    # Looked up on use: Celery may import this module before ``django.setup()``.
    @classproperty
    def TaskModel(cls) -> Any:
        """The model of task results."""
        from djcelery.models import TaskMeta

        return TaskMeta

    @classproperty
    def TaskSetModel(cls) -> Any:
        """The model of saved group results."""
        from djcelery.models import TaskSetMeta

        return TaskSetMeta

    def as_uri(self, include_password: bool = False) -> str:
        """Return what the worker prints as the place of results."""
        return f"database ({self.TaskModel._meta.db_table})"

    # tasks

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Write the row of *task_id*, unless it is final; return *result*.

        Database: one statement, tried again after transient errors; see ``ResultManager.write``.
        """
        children = self.current_task_children(request)
        row = {
            "task_id": task_id,
            "status": state,
            "traceback": traceback,
            "date_done": utils.now(),
            "hidden": False,
            **self._encoded(result=result, meta={"children": children}),
        }
        self.TaskModel._default_manager.write(row, eager=bool(getattr(request, "is_eager", False)))
        return result

    def _encoded(self, **values: Any) -> dict[str, Any]:
        """Return *values* as the columns hold them, with the columns that say how they are encoded."""
        columns: dict[str, Any] = {"content_type": self.content_type, "content_encoding": self.content_encoding}
        for name, value in values.items():
            if value is None:
                columns[name] = None
                continue
            _, _, payload = self._encode(value)
            if isinstance(payload, bytes):
                payload = base64.b64encode(payload).decode()
            columns[name] = PickledObject(payload)
        return columns

    def _decoded(self, text: str | None, content_type: str | None, content_encoding: str | None) -> Any:
        if text is None or content_type in _OWN_CONTENT_TYPES:
            return decode_stored(text)
        try:
            body = base64.b64decode(text) if content_encoding == "binary" else text
            return loads(body, content_type, content_encoding, accept={*self.accept, self.content_type})
        except (KombuError, ValueError, TypeError) as exc:
            return Unreadable(f"not {content_type} that this process accepts ({exc})")

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        """Return the meta of *task_id*; an unknown id is PENDING.

        Database: one SELECT, on the alias for writing, which a replica may lag behind.
        """
        raw = {f"{name}_text": ExpressionWrapper(F(name), output_field=TextField()) for name in ("result", "meta")}
        rows = self.TaskModel._default_manager.using(router.db_for_write(self.TaskModel)).filter(task_id=task_id)
        row = rows.values("status", "date_done", "traceback", "content_type", "content_encoding", **raw).first()
        if row is None:
            row = dict.fromkeys(("date_done", "traceback", "content_type", "content_encoding", *raw))
            row["status"] = states.PENDING
        encoding = (row["content_type"], row["content_encoding"])
        meta = self._decoded(row["meta_text"], *encoding)
        return self.meta_from_decoded(
            {
                "task_id": task_id,
                "status": row["status"],
                "result": self._decoded(row["result_text"], *encoding),
                "date_done": row["date_done"] if row["status"] in self.READY_STATES else None,
                "traceback": row["traceback"],
                "children": meta.get("children") if isinstance(meta, dict) else None,
            }
        )

    def exception_to_python(self, exc: Any) -> BaseException | None:
        """Return the exception that a stored value stands for; one that may not be loaded keeps its name."""
        if isinstance(exc, Refused):
            module, _, name = exc.name.rpartition(".")
            return create_exception_cls(name, module)(*exc.args)
        if isinstance(exc, Unreadable):
            return ResultUndecodable(str(exc))
        if isinstance(exc, BaseException):
            return get_pickled_exception(exc)
        return super().exception_to_python(exc)

    def _forget(self, task_id: str) -> None:
        """Delete the row of *task_id*, if there is one."""
        self.TaskModel._default_manager.using(router.db_for_write(self.TaskModel)).filter(task_id=task_id).delete()

    def cleanup(self) -> None:
        """Delete the results and saved groups older than ``CELERY_RESULT_EXPIRES``; None or 0 deletes nothing."""
        for model in (self.TaskModel, self.TaskSetModel):
            model._default_manager.delete_expired(self.expires)

    # groups

    def _save_group(self, group_id: str, result: Any) -> Any:
        """Write the row of *group_id* and return *result*."""
        value = result.as_tuple() if isinstance(result, ResultBase) else result
        row = {
            "taskset_id": group_id,
            "date_done": utils.now(),
            "hidden": False,
            **self._encoded(result=value),
        }
        self.TaskSetModel._default_manager.write(row)
        return result

    def _restore_group(self, group_id: str) -> dict[str, Any] | None:
        """Return the saved group as ``{taskset_id, result, date_done}``, or None."""
        raw = ExpressionWrapper(F("result"), output_field=TextField())
        rows = self.TaskSetModel._default_manager.using(router.db_for_write(self.TaskSetModel))
        row = rows.filter(taskset_id=group_id).values("date_done", "content_type", "content_encoding", text=raw).first()
        if row is None:
            return None
        value = self._decoded(row["text"], row["content_type"], row["content_encoding"])
        if isinstance(value, ResultBase):
            value = value.as_tuple()
        if isinstance(value, Unreadable):
            logger.warning("The saved group %s can't be restored: %s", group_id, value)
            return None
        return {
            "taskset_id": group_id,
            "result": result_from_tuple(value, self.app),
            "date_done": row["date_done"],
        }

    def _delete_group(self, group_id: str) -> None:
        """Delete the saved group, if there is one."""
        self.TaskSetModel._default_manager.delete_taskset(group_id)

    # failures

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Tell Celery's own retrying (``result_backend_always_retry``) which errors pass."""
        return db.is_transient(exc)

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
from django.db import connections, router
from django.db.models import ExpressionWrapper, F, TextField
from django.utils import timezone
from django.utils.functional import cached_property, classproperty
from kombu.exceptions import KombuError
from kombu.serialization import loads

from djcelery import db, utils
from djcelery.backends import columns, publish, redaction
from djcelery.backends.chords import ChordMixin
from djcelery.backends.outcomes import OutcomesMixin
from djcelery.backends.waiting import WaitingMixin
from djcelery.conf import conf
from djcelery.exceptions import ResultTooLarge, ResultUndecodable
from djcelery.managers import FINAL_STATES, TaskManager
from djcelery.managers.retention import Retention, chord_age
from djcelery.picklefield import Refused, Unreadable, decode_stored

__all__ = ("DatabaseBackend",)

logger = logging.getLogger(__name__)

# What the column decodes by itself: JSON, and pickles by the trust rules, never by kombu.
_OWN_CONTENT_TYPES = (None, "application/json", "application/x-python-serialize")


class DatabaseBackend(OutcomesMixin, WaitingMixin, ChordMixin, redaction.RedactionMixin, BaseBackend):
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
        """Write the row of *task_id*, unless ``may_replace`` forbids it; return *result*.

        Raises:
            kombu.exceptions.EncodeError: The serializer can't carry the value, or it is too large.
            django.db.Error: The row could not be written.

        Database: one statement, tried again after transient errors; see ``ResultManager.write``.
        """
        manager = self.TaskModel._default_manager
        if self._is_stored_by(manager):
            children = self.current_task_children(request)
            manager.store_result(task_id, result, state, traceback=traceback, children=children)
            return result
        about = request if getattr(request, "id", None) in (None, task_id) else None
        # Else a task writes the state of another, about which its own request says nothing.
        row = self._row(task_id, result, state, traceback, about)
        manager.write(row, eager=bool(getattr(request, "is_eager", False)))
        return result

    def _has_own_table(self) -> bool:
        """Tell whether results are in a table of the project, which may lack the columns that ours has."""
        from djcelery.models import TaskMeta

        return not issubclass(self.TaskModel, TaskMeta)

    def _is_stored_by(self, manager: Any) -> bool:
        """Tell whether to store by ``store_result()`` of *manager*, as django-celery did: if it is the project's."""
        return self._has_own_table() or type(manager).store_result is not TaskManager.store_result

    def _row(self, task_id: str, result: Any, state: str, traceback: str | None, request: Any) -> dict[str, Any]:
        """Return the columns of *task_id* that are known now; the others keep what an earlier write put there."""
        now, final = timezone.now(), state in FINAL_STATES
        redacted = redaction.redacted_names(self.app, getattr(request, "task", None))
        row = columns.of_request(self.app, request, redacted, final=final) if request else columns.Columns()
        row.update(task_id=task_id, status=state, date_done=now, hidden=False)
        row.setdefault("created", row.get("started", now))
        if final:
            row["finished"] = now
        elif state == states.STARTED:
            row.setdefault("started", now)
        value = columns.shown_value(row, state, result, redacted)
        row["traceback"] = columns.shown_traceback(row, traceback, redacted)
        if value is not None and state not in states.ALL_STATES:
            row["progress"] = columns.capped(row, "progress", value)
        row["result"] = self._payload(row, state, value)
        if request is not None:
            row["meta"] = self._children(request)
        row.update(content_type=self.content_type, content_encoding=self.content_encoding)
        if request or row.flags:
            row["flags"] = " ".join(row.flags) or None
        return row

    def _children(self, request: Any) -> str | None:
        """Return the ids of the tasks that this one sent, encoded; few send any."""
        children = self.current_task_children(request)
        return self._encoded({"children": children}) if children else self._without_children

    @cached_property
    def _without_children(self) -> str | None:
        return self._encoded({"children": []})

    def _payload(self, row: columns.Columns, state: str, value: Any) -> str | None:
        """Return *value* encoded; one that is too large is cut, or refused if the setting says so."""
        payload = self._encoded(value)
        limit = self._result_limit(payload)
        if limit and state in states.EXCEPTION_STATES:
            limit = max(limit, columns.LEAST_ERROR_BYTES)
        if payload is None or limit is None or len(payload) <= limit:
            return payload
        if state not in states.EXCEPTION_STATES and conf.DJCELERY_RESULT_TOO_LARGE == "refuse":
            raise ResultTooLarge(
                f"The result of task {row['task_id']} takes {len(payload)} bytes; {limit} may be stored. Return less, "
                "raise DJCELERY_RESULT_MAX_BYTES, or write DJCELERY_RESULT_TOO_LARGE = 'cut'."
            )
        row.flag("result_cut")
        return columns.cut_payload(self._encoded, state, value, limit)

    def _result_limit(self, payload: str | None) -> int | None:
        limit = conf.DJCELERY_RESULT_MAX_BYTES
        if payload is None or len(payload) < db.SAFE_STATEMENT_BYTES:
            return limit
        largest = db.largest_text(db.result_connection(router.db_for_write(self.TaskModel)))
        return min(filter(None, (limit, largest)), default=None)

    def _encoded(self, value: Any) -> str | None:
        """Return *value* as the text columns hold it."""
        if value is None:
            return None
        _, _, payload = self._encode(value)
        return base64.b64encode(payload).decode() if isinstance(payload, bytes) else payload

    def _decoded(self, text: str | None, content_type: str | None, content_encoding: str | None) -> Any:
        if text is None or content_type in _OWN_CONTENT_TYPES:
            value = decode_stored(text)
            return get_pickled_exception(value) if isinstance(value, BaseException) else value
        try:
            body = base64.b64decode(text) if content_encoding == "binary" else text
            return loads(body, content_type, content_encoding, accept={*self.accept, self.content_type})
        except (KombuError, ValueError, TypeError) as exc:
            return Unreadable(f"not {content_type} that this process accepts ({exc})")

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        """Return the meta of *task_id*; an unknown id is PENDING.

        Database: one SELECT; see ``TaskManager.fetch``.
        """
        manager = self.TaskModel._default_manager
        if self._has_own_table():
            return self.meta_from_decoded(manager.get_task(task_id).to_dict())
        rows = manager.fetch([task_id])
        return self._meta(rows[0] if rows else {"task_id": task_id, "status": states.PENDING})

    def get_metas(self, task_ids: list[str]) -> list[dict[str, Any]]:
        """Return the metas of those of *task_ids* that have a row. Database: one SELECT."""
        if self._has_own_table():
            rows = self.TaskModel._default_manager.filter(task_id__in=task_ids)
            return [self.meta_from_decoded(row.to_dict()) for row in rows]
        # Celery 5.7's loop of ``result_backend_always_retry``; 5.6 has it in other methods only.
        retried = getattr(self, "_ensure_retryable", lambda work, *args: work(*args))
        return [self._meta(row) for row in retried(self.TaskModel._default_manager.fetch, task_ids)]

    def on_first_pause(self) -> None:
        """Warn if the caller's transaction can't see what other processes store."""
        self.TaskModel._default_manager.warn_if_repeatable_read()

    def on_task_call(self, producer: Any, task_id: str) -> dict[str, Any]:
        """Ask for a row of *task_id*, which is about to be published, if ``DJCELERY_STORE_PUBLISHED`` is on."""
        if conf.DJCELERY_STORE_PUBLISHED and not self._is_stored_by(self.TaskModel._default_manager):
            publish.expect(self, task_id)
        return super().on_task_call(producer, task_id)

    def _meta(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a fetched *row* as what Celery calls meta."""
        encoding = (row.get("content_type"), row.get("content_encoding"))
        inner = self._decoded(row.get("meta"), *encoding)
        meta = {
            "task_id": row["task_id"],
            "status": row["status"],
            "result": self._decoded(row.get("result"), *encoding),
            "date_done": row.get("date_done") if row["status"] in self.READY_STATES else None,
            "traceback": row.get("traceback"),
            "children": inner.get("children") if isinstance(inner, dict) else None,
        }
        for name in ("name", "worker", "retries", "queue", "parent_id", "group_id"):
            meta[name] = row.get(name)
        for name in ("args", "kwargs"):
            meta[name] = decode_stored(row.get(name))
        return self.meta_from_decoded(meta)

    def exception_to_python(self, exc: Any) -> BaseException | None:
        """Return the exception that a stored value stands for; one that may not be loaded keeps its name."""
        if isinstance(exc, Refused):
            module, _, name = exc.name.rpartition(".")
            return create_exception_cls(name, module)(*exc.args)
        if isinstance(exc, Unreadable):
            return ResultUndecodable(str(exc))
        # Celery hands exceptions in again, so nothing may be unwrapped here: see ``_decoded``.
        return super().exception_to_python(exc)

    def _forget(self, task_id: str) -> None:
        """Delete the row of *task_id*, if there is one."""
        self.TaskModel._default_manager.using(router.db_for_write(self.TaskModel)).filter(task_id=task_id).delete()

    def cleanup(self) -> None:
        """Delete the results that are expired by ``DJCELERY_RETENTION`` and ``CELERY_RESULT_EXPIRES``.

        Saved groups go by ``CELERY_RESULT_EXPIRES`` alone, chords by ``CELERY_RESULT_CHORD_EXPIRES`` or the
        same. None and 0 delete nothing. Many short transactions; no signals are sent.

        Raises:
            SettingError, ValueError: An age can't be used.
        """
        from djcelery.models import Chord

        for model in (self.TaskModel, self.TaskSetModel, Chord):
            db.ready(connections[router.db_for_write(model)])
        # A table of the project has neither our indexes nor names of tasks to go by.
        ages = Retention.of((), self.expires) if self._has_own_table() else Retention.from_settings(self.expires)
        results = self.TaskModel._default_manager.delete_by(ages)
        groups = self.TaskSetModel._default_manager.delete_expired(self.expires)
        chords = Chord.objects.delete_expired(chord_age(self.app.conf, self.expires))
        logger.info("Deleted %d expired results, %d saved groups and %d chords.", results, groups, chords)

    # groups

    def _save_group(self, group_id: str, result: Any) -> Any:
        """Write the row of *group_id* and return *result*."""
        value = result.as_tuple() if isinstance(result, ResultBase) else result
        row = {
            "taskset_id": group_id,
            "date_done": utils.now(),
            "hidden": False,
            "result": self._encoded(value),
            "content_type": self.content_type,
            "content_encoding": self.content_encoding,
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

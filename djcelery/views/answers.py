"""What every view answers: JSON that any parser reads, with the status code that fits.

Called by the other modules of ``views``. Reads and writes nothing.
Next: ``docs/reference/views.rst``.
"""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Callable
from typing import Any

from django import http
from django.core.exceptions import BadRequest, RequestDataTooBig, SuspiciousOperation
from django.core.serializers.json import DjangoJSONEncoder
from django.db import Error
from django.http import HttpRequest, HttpResponse
from django.http.multipartparser import MultiPartParserError
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from djcelery.backends.values import safe_repr
from djcelery.exceptions import DjCeleryError

logger = logging.getLogger(__name__)

#: When a caller should try again that met a server which is away, in seconds.
RETRY_AFTER_S = 5
# Of a reason that quotes what the caller sent.
_LONGEST_REASON = 300


class JsonResponse(http.JsonResponse):
    """An answer with *obj* as JSON: dates as ISO texts, decimals and UUIDs as texts.

    Raises:
        TypeError: JSON has nothing for *obj*.
        ValueError: It holds a NaN or an infinite number, or itself.
    """

    def __init__(self, obj: Any, **kwargs: Any) -> None:
        super().__init__(obj, safe=False, json_dumps_params={"allow_nan": False}, **kwargs)


class Refused(DjCeleryError):
    """A view ends with an error: status code, a text for ``{"error": …}``, and headers."""

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None):
        super().__init__(text)
        self.status, self.headers = status, headers or {}

    def answer(self) -> JsonResponse:
        """Return what the caller gets."""
        return JsonResponse({"error": str(self)}, status=self.status, headers=self.headers)


def away(text: str) -> Refused:
    """Return the error for a server that may be back soon."""
    return Refused(503, text, {"Retry-After": str(RETRY_AFTER_S)})


def reason(exc: BaseException) -> str:
    """Return what *exc* says, for a caller who may read it."""
    return str(exc)[:_LONGEST_REASON] or type(exc).__name__


def carried(value: Any) -> tuple[Any, bool]:
    """Return *value*, or its repr if JSON can't carry it; and whether it is the repr."""
    try:
        json.dumps(value, cls=DjangoJSONEncoder, allow_nan=False)
    except Exception:  # noqa: BLE001 - the value's own code may raise anything
        return safe_repr(value), True
    return value, False


def answering(view: Callable[..., Any]) -> Callable[..., HttpResponse]:
    """Return *view* with its value as JSON, and what goes wrong with the request as a JSON error.

    Django's own CSRF check is left out, since it answers with a page: ``access.require_csrf`` is ours.
    """

    @never_cache
    @csrf_exempt
    @functools.wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            _require_length(request)
            return JsonResponse(view(request, *args, **kwargs))
        except Refused as exc:
            return exc.answer()
        except RequestDataTooBig as exc:
            return Refused(413, reason(exc)).answer()
        except (SuspiciousOperation, BadRequest, MultiPartParserError, http.UnreadablePostError) as exc:
            return Refused(400, f"The request can't be read: {reason(exc)}").answer()
        except Error as exc:
            logger.warning("The database can't be asked for %r: %s", request.path, exc, exc_info=True)
            return away("The database can't be asked now.").answer()

    return answer


def _require_length(request: HttpRequest) -> None:
    """Refuse a Content-Length that is no number, or beyond any: Django would fail where it reads the body."""
    try:
        length = int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError as exc:
        raise Refused(400, "Content-Length is not a number.") from exc
    if length > sys.maxsize:
        raise Refused(413, "Content-Length is too large.")

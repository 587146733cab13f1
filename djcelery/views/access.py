"""Who may call a view: methods, permissions, Django's CSRF check and the token of webhooks.

Called by the other modules of ``views``. Reads the session and the permissions of who asks.
Next: ``docs/reference/views.rst``.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.crypto import constant_time_compare

from djcelery.conf import conf
from djcelery.views.answers import Refused

#: To send tasks.
SENDS = "djcelery.apply_taskstate"
#: Either of them, to see states.
SEES = ("djcelery.view_taskmeta", "djcelery.view_taskstate")
#: To see the list of tasks.
LISTS = "djcelery.view_taskstate"
#: To see results, exceptions and tracebacks beside the states.
SEES_VALUES = "djcelery.arguments_taskstate"


def require_method(request: HttpRequest, *allowed: str) -> None:
    """Refuse every method but those *allowed*."""
    if request.method not in allowed:
        raise Refused(405, f"Use {' or '.join(allowed)}.", {"Allow": ", ".join(allowed)})


def has_permission(request: HttpRequest, *any_of: str) -> bool:
    """Tell whether who asks has one of these permissions.

    Database: Django's queries for session, user and permissions; none without a session.
    """
    # A project without sessions has no user at all.
    user = getattr(request, "user", None)
    return user is not None and user.is_active and any(user.has_perm(name) for name in any_of)


def require_permission(request: HttpRequest, *any_of: str) -> None:
    """Refuse whoever has none of these permissions: 401 if nobody is logged in, else 403."""
    if has_permission(request, *any_of):
        return
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        raise Refused(401, "Log in first.", {"WWW-Authenticate": 'Session realm="djcelery"'})
    raise Refused(403, f"You need the permission {' or '.join(any_of)}.")


class _CsrfCheck(CsrfViewMiddleware):
    """Django's check, which says why instead of showing a page."""

    def _reject(self, request: HttpRequest, reason: str) -> str:  # type: ignore[override]
        return reason


def require_csrf(request: HttpRequest) -> None:
    """Refuse a request without a CSRF token, in projects without Django's middleware too."""
    check = _CsrfCheck(lambda request: HttpResponse())
    check.process_request(request)
    why = check.process_view(request, None, (), {})
    if why is not None:
        raise Refused(403, f"Refused by Django's CSRF check: {why}")


def require_token(request: HttpRequest) -> None:
    """Refuse whoever doesn't send ``DJCELERY_WEBHOOK_TOKEN``."""
    token = conf.DJCELERY_WEBHOOK_TOKEN
    if not token:
        raise Refused(403, "This server has no DJCELERY_WEBHOOK_TOKEN, so nobody may call it.")
    scheme, _space, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not constant_time_compare(given.strip(), token):
        raise Refused(401, "Send the token: Authorization: Bearer …", {"WWW-Authenticate": "Bearer"})

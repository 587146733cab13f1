"""From any Python value to JSON that every database takes, and to texts of a given size.

Called by ``columns`` for what is stored beside results; pure, but for the code of the values themselves.
Next: ``docs/explain/life-of-a-result.rst``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from celery.utils.saferepr import saferepr
from kombu.utils.json import JSONEncoder

from djcelery import db

#: The longest text that stands for a value that JSON can't carry.
REPR_CHARACTERS = 1024
# MariaDB takes 31 levels of nesting, MySQL 100.
_DEEPEST = 30

_encoder = JSONEncoder()


def as_json(value: Any, changed: Callable[[str], Any] = lambda what: None) -> str:
    """Return *value* as JSON that every database takes; what JSON can't carry becomes its repr.

    Args:
        changed: Called with ``"repr"`` or ``"escaped"`` if the text says something else than the value.
    """
    try:
        encoded = _encoder.encode(value)
    except Exception:  # noqa: BLE001 - as in safe_repr
        return json.dumps(_portable(value, changed))
    # What Python writes, and jsonb or JSON_VALID refuse.
    if "\\u0000" in encoded or "\\ud" in encoded or "NaN" in encoded or "Infinity" in encoded or _is_deep(encoded):
        return json.dumps(_portable(value, changed))
    return encoded


def _is_deep(encoded: str) -> bool:
    if encoded.count("[") + encoded.count("{") <= _DEEPEST:
        return False
    depth = deepest = 0
    for bracket in re.findall(r'"(?:[^"\\]|\\.)*"|[][{}]', encoded):
        if bracket in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif bracket in "]}":
            depth -= 1
    return deepest > _DEEPEST


def _portable(value: Any, changed: Callable[[str], Any], above: tuple[int, ...] = ()) -> Any:
    """Return *value* rebuilt of what JSON has, escaped, and not too deep; *above*: the ids that it is inside of."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        stored = db.storable(str.__str__(value))
        if stored != value:
            changed("escaped")
        return stored
    if isinstance(value, float) and not math.isfinite(value):
        changed("escaped")
        return str(float(value))
    try:
        if isinstance(value, (int, float)):
            return json.loads(json.dumps(value))
        if id(value) not in above and len(above) < _DEEPEST:
            return _rebuilt(value, changed, (*above, id(value)))
    except Exception:  # noqa: BLE001, S110 - its repr it is
        pass
    changed("repr")
    return db.storable(safe_repr(value))


def _rebuilt(value: Any, changed: Callable[[str], Any], above: tuple[int, ...]) -> Any:
    if isinstance(value, Mapping):
        return {_key(key, changed): _portable(item, changed, above) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_portable(item, changed, above) for item in value]
    return _portable(_encoder.default(value), changed, above)


def _key(key: Any, changed: Callable[[str], Any]) -> str:
    stored = _portable(key, changed) if isinstance(key, (str, int, float, type(None))) else db.storable(safe_repr(key))
    if not isinstance(key, (str, int, float, type(None))):
        changed("repr")
    return stored if isinstance(stored, str) else json.dumps(stored)


def cut_json(value: Any, limit: int) -> str:
    """Return the beginning of *value* as text that takes no more than *limit* bytes as JSON, 2 at least."""
    shown = cut_text(value, limit)
    while shown and (size := len(as_json(shown))) > limit:
        shown = shown[: min(len(shown) - 1, len(shown) * limit // size)]
    return shown


def cut_text(value: Any, limit: int) -> str:
    """Return the first characters of *value*, or of its repr; at most *limit*."""
    return value[:limit] if isinstance(value, str) else safe_repr(value, limit)


def safe_repr(value: Any, limit: int = REPR_CHARACTERS, levels: int = 3) -> str:
    """Return Celery's repr of *value*, at most *limit* characters; never raises."""
    try:
        return saferepr(value, limit, levels)[:limit]
    except Exception:  # noqa: BLE001 - an argument's own code may raise anything
        # An int of more than 4300 digits is an error, too.
        return (hex(value) if isinstance(value, int) else f"<{type(value).__name__}>")[:limit]

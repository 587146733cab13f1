"""Names that modules had in django-celery: those that still work and warn, and those that say what took their place.

Called by modules for their ``__getattr__``. Imports nothing of Django or Celery, since a settings module comes here.
Next: ``docs/compatibility.rst``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Old(NamedTuple):
    """A name that still works: what to write instead, and a function that returns its value."""

    instead: str
    value: Callable[[], Any]


def old_names(
    module: str,
    given: Mapping[str, Old],
    gone: Mapping[str, str] | None = None,
    made: Mapping[str, Callable[[], Any]] | None = None,
) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of *module*.

    Args:
        given: Names that still have a value; whoever asks for one gets a ``DeprecationWarning`` with it.
        gone: Names that have none any more, and what to do instead.
        made: Names of today whose value is made when it is asked for; no warning.
    """

    def __getattr__(name: str) -> Any:
        if made and name in made:
            return made[name]()
        if name in given:
            text = f"{module}.{name} is deprecated: use {given[name].instead}."
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            return given[name].value()
        if gone and name in gone:
            # An AttributeError would not be seen: "from … import" puts its own words in the place of it.
            raise ImportError(f"{module}.{name} is gone: {gone[name]}", name=module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__

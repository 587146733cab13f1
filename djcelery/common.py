"""The language a task runs in."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.utils import translation


@contextmanager
def respect_language(language: str | None) -> Iterator[None]:
    """Activate *language* (such as ``"es"``) inside the block; an empty one changes nothing."""
    if not language:
        yield
        return
    before = translation.get_language()
    translation.activate(language)
    try:
        yield
    finally:
        if before is None:
            translation.deactivate_all()
        else:
            translation.activate(before)


def respects_language(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Run the decorated function in the language of its keyword argument ``language``.

    The argument is consumed here and doesn't reach the function. The task decorator goes outside.
    """

    @functools.wraps(fun)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with respect_language(kwargs.pop("language", None)):
            return fun(*args, **kwargs)

    return wrapper

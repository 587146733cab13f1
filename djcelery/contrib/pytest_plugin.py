"""Fixtures for pytest: ``capture_tasks`` and ``sent_tasks``.

Called by pytest, if a ``conftest.py`` says ``pytest_plugins = ["djcelery.contrib.pytest_plugin"]``. It is no
entry point: pytest would load it, and rewrite the assertions of all of djcelery, in every project that has djcelery.
Next: ``docs/testing.rst``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture
def capture_tasks() -> Callable[..., Any]:
    """Return the context manager of that name in ``djcelery.contrib.testing``."""
    # Django is not set up when pytest loads this module.
    from djcelery.contrib.testing import capture_tasks

    return capture_tasks


@pytest.fixture
def sent_tasks() -> Iterator[Any]:
    """The tasks that are sent in this test, captured: ``sent_tasks.assert_sent(…)``, ``sent_tasks.run()``."""
    from djcelery.contrib.testing import capture_tasks

    with capture_tasks() as tasks:
        yield tasks

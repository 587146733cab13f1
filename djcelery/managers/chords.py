"""The manager of the chords that wait for their parts."""

from __future__ import annotations

from djcelery.managers.base import ExtendedManager


class ChordManager(ExtendedManager):
    """Chords, one row per group id."""

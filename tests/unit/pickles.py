"""Pickles written by hand, and what reading them must never do."""

from __future__ import annotations

import base64
import pickle
import zlib

from djcelery.picklefield import Unreadable, decode_stored


def stored(data, compress=False):
    """Return pickle *data* as the column holds it."""
    return base64.b64encode(zlib.compress(data) if compress else data).decode()


def body(value):
    """Return the opcodes that make *value*, without the frame of a pickle around them."""
    return pickle.dumps(value, 2)[2:-1]


def call(name, *args):
    """Return a pickle that calls *name* with *args*."""
    module, _, function = name.rpartition(".")
    return b"\x80\x02c%s\n%s\n%sR." % (module.encode(), function.encode(), body(args))


def read(data):
    """Return what the column gives for pickle *data*."""
    return decode_stored(stored(data))


def assert_harmless(value):
    """Check that *value* says that it could not be loaded, and can be shown."""
    assert isinstance(value, Unreadable), value
    assert not value
    assert "unreadable" in repr(value)
    assert str(value) == repr(value)

"""Stored values: JSON that djcelery writes, and pickles that django-celery wrote.

Called by ``models`` (columns) and ``backends`` (values). Old pickles come from a table that many
programs may write to, so ``unpickler`` reads them by a fixed list of what they may name.
Next: ``docs/explain/trust.rst``.
"""

from djcelery.picklefield.fields import (
    DEFAULT_PROTOCOL,
    NO_DECOMPRESS_HEADER,
    PickledObject,
    PickledObjectField,
    StoredValueField,
    decode,
    decode_stored,
    encode,
    maybe_compress,
    maybe_decompress,
)
from djcelery.picklefield.refused import Refused, Unreadable
from djcelery.picklefield.unpickler import loads

__all__ = (
    "DEFAULT_PROTOCOL",
    "NO_DECOMPRESS_HEADER",
    "PickledObject",
    "PickledObjectField",
    "Refused",
    "StoredValueField",
    "Unreadable",
    "decode",
    "decode_stored",
    "encode",
    "loads",
    "maybe_compress",
    "maybe_decompress",
)

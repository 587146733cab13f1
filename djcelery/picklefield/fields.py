"""The text in a value column: base64 of an old pickle, maybe compressed, or a serialized new value."""

from __future__ import annotations

import base64
import binascii
import pickle
import zlib
from datetime import date, time
from decimal import Decimal
from json import JSONDecoder
from typing import Any

from django.db import models
from kombu.utils import json

from djcelery.exceptions import ResultUndecodable
from djcelery.picklefield.refused import Unreadable
from djcelery.picklefield.unpickler import loads

DEFAULT_PROTOCOL = 2
#: A payload that starts so is not compressed, whatever the field says. Nothing writes it any more.
NO_DECOMPRESS_HEADER = b"\x1e\x00r8d9qwwerwhA@"
#: The most that a compressed value may grow to, in bytes.
MAX_INFLATED_BYTES = 64 * 1024 * 1024

# In base64, what a pickle of protocol 2 and above begins with (0x80), and what zlib data does (0x78).
# No JSON text begins with either, so the two kinds of value can share a column.
_PICKLE_PREFIX = "gA"
_ZLIB_PREFIXES = ("eA", "eF", "eJ", "eN")


# Kombu's loads makes a decoder for every text.
_JSON = JSONDecoder(object_hook=json.object_hook)


class PickledObject(str):
    """Text that is encoded already; a field stores it as it is."""

    __slots__ = ()


def maybe_compress(value: bytes, do_compress: bool = False) -> bytes:
    """Return *value*, compressed if *do_compress*."""
    return zlib.compress(value) if do_compress else value


def maybe_decompress(value: bytes, do_decompress: bool = False) -> bytes:
    """Return *value*, inflated if *do_decompress* and it doesn't start with ``NO_DECOMPRESS_HEADER``.

    Raises:
        zlib.error: It isn't compressed data.
        ResultUndecodable: It would grow beyond ``MAX_INFLATED_BYTES``.
    """
    if not do_decompress or value.startswith(NO_DECOMPRESS_HEADER):
        return value
    inflater = zlib.decompressobj()
    inflated = inflater.decompress(value, MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise ResultUndecodable(f"A compressed value grows beyond {MAX_INFLATED_BYTES} bytes; it is not read.")
    if not inflater.eof:
        raise zlib.error("incomplete data")
    return inflated


def encode(value: Any, compress_object: bool = False, pickle_protocol: int = DEFAULT_PROTOCOL) -> str:
    """Return *value* as base64 of its pickle, compressed in between if *compress_object*."""
    return base64.b64encode(maybe_compress(pickle.dumps(value, pickle_protocol), compress_object)).decode()


def decode(value: str | bytes, compress_object: bool = False) -> Any:
    """Return the value that *value*, a text made by ``encode()``, stands for.

    The pickle is read by the trust rules; what may not be loaded comes back as ``Refused``.

    Raises:
        ResultUndecodable: *value* is not base64 of a (compressed) pickle.
    """
    try:
        raw = base64.b64decode(value, validate=True)
        return loads(maybe_decompress(raw, compress_object))
    except (binascii.Error, zlib.error, ValueError) as exc:
        raise ResultUndecodable(f"Not a stored pickle: {exc}.") from exc


def decode_stored(text: Any) -> Any:
    """Return the value in a column of either kind; never raises.

    An old pickle is unpickled, compressed or not; a JSON text is parsed; any other text, such as the
    ``''`` that hand-written ALTERs of django-celery 3.0.1 left in ``meta``, is returned as it is. A pickle
    that can't be read is an ``Unreadable``.
    """
    if not isinstance(text, str):
        return text
    compressed = text.startswith(_ZLIB_PREFIXES)
    if compressed or text.startswith(_PICKLE_PREFIX):
        try:
            return decode(text, compressed)
        except ResultUndecodable as exc:
            return Unreadable(str(exc))
    try:
        return _JSON.decode(text)
    except (ValueError, TypeError, RecursionError, LookupError):
        return text


class PickledObjectField(models.Field):
    """A column that holds a pickle as text: what django-celery's own field wrote.

    Kept for the migration ``0001_initial`` and for models of projects that use it. A value that may
    not be loaded comes back as ``Refused``, one that can't be read as ``Unreadable``.
    """

    def __init__(self, *args: Any, compress: bool = False, protocol: int = DEFAULT_PROTOCOL, **kwargs: Any) -> None:
        self.compress = compress
        self.protocol = protocol
        kwargs.setdefault("editable", False)
        super().__init__(*args, **kwargs)

    def get_internal_type(self) -> str:
        """Return ``TextField``: the column is text."""
        return "TextField"

    def get_default(self) -> Any:
        """Return the default itself, called if it can be; never turned into text."""
        if self.has_default():
            return self.default() if callable(self.default) else self.default
        return super().get_default()

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Return the stored value."""
        return decode_stored(value)

    def to_python(self, value: Any) -> Any:
        """Return a text of a fixture as one that is encoded already, anything else as it is."""
        return PickledObject(value) if isinstance(value, str) else value

    def clean(self, value: Any, model_instance: models.Model | None) -> Any:
        """Return *value* as it is: a text is a value here, not an encoded one."""
        self.validate(value, model_instance)
        self.run_validators(value)
        return value

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """Return what to store; a value that is still as it was read keeps its stored text, byte for byte.

        So saving a row for another column's sake neither loses what could not be loaded, nor turns an
        old pickle into JSON.

        Database: one SELECT if the row exists.
        """
        value = super().pre_save(model_instance, add)
        return value if add else self._as_stored(model_instance, value)

    def _as_stored(self, instance: models.Model, value: Any) -> Any:
        if instance._state.adding or isinstance(value, PickledObject):
            return value
        rows = type(instance)._base_manager.using(instance._state.db).filter(pk=instance.pk)
        column = models.ExpressionWrapper(models.F(self.attname), output_field=models.TextField())
        text = rows.values_list(column, flat=True).first()
        return PickledObject(text) if text is not None and _is_same(decode_stored(text), value) else value

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """Return the text to store; None and ``PickledObject`` stay as they are."""
        if value is None or isinstance(value, PickledObject):
            return value if value is None else str(value)
        return self.encode(value)

    def encode(self, value: Any) -> str:
        """Return *value* as this field stores it."""
        return encode(value, self.compress, self.protocol)

    def value_from_object(self, obj: models.Model) -> Any:
        """Return the value; a date or Decimal as encoded text, since serializers would write it as plain text."""
        value = super().value_from_object(obj)
        return self.value_to_string(obj) if isinstance(value, (date, time, Decimal)) else value

    def value_to_string(self, obj: models.Model) -> str | None:
        """Return the stored text if the value is still as it was read, else the encoded value; for ``dumpdata``.

        Database: one SELECT if the row exists.
        """
        value = self._as_stored(obj, super().value_from_object(obj))
        return self.get_db_prep_value(value, None)


def _is_same(one: Any, other: Any) -> bool:
    """Tell whether two values are alike through and through; equality alone would take 1 for True."""
    try:
        return pickle.dumps(one) == pickle.dumps(other)
    except Exception:  # noqa: BLE001 - a class of the project may refuse in its own way
        return type(one) is type(other) and one == other


class StoredValueField(PickledObjectField):
    """A column that is written as JSON, and that still reads the pickles of old rows."""

    def encode(self, value: Any) -> str:
        """Return *value* as JSON.

        Raises:
            TypeError: JSON can't carry it; the message names its type.
        """
        return json.dumps(value)

"""Read pickles that name only what is on a list; see Trust in ``docs/explain/trust.rst``.

The list is in ``standins``: value types, exceptions, and Celery's result classes under the names that
Celery 2 and 3 gave them. Python 2 wrote byte strings where a person meant text; they come back as
text if they are UTF-8, else as bytes. A pickle can't make more of itself than its length allows.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections import deque
from typing import Any

from djcelery.exceptions import PickleRefused, ResultUndecodable
from djcelery.picklefield import standins
from djcelery.picklefield.refused import Refused, Unreadable

#: Nesting deeper than this is refused; it would exhaust the stack of whoever walks the value.
MAX_DEPTH = 200
#: How much a value may be, printed: so many characters, and so many times the length of its pickle. Parts
#: that are referred to many times are printed as often.
MAX_PRINTED = 300_000
MAX_GROWTH = 20


def loads(data: bytes) -> Any:
    """Return the value of the pickle *data*, by the rules above; ``Unreadable`` if it is hostile.

    Raises:
        ResultUndecodable: *data* is no pickle, or a broken one.
    """
    try:
        unpickler = _Unpickler(data)
        value = unpickler.load()
        value = standins.unwrap(value)
        unpickler.measure(value)
    except PickleRefused as exc:
        return Unreadable(str(exc).rstrip("."))
    except Exception as exc:  # a broken or hostile pickle can make the unpickler raise anything
        raise ResultUndecodable(f"the pickle is broken ({type(exc).__name__}: {exc})") from exc
    return value


# The unpickler written in Python: in the one written in C nobody can refuse to BUILD on a class, by
# which a pickle would set attributes of classes that this process uses.
_Python: Any = pickle._Unpickler  # type: ignore[attr-defined]


class _Unpickler(_Python):
    dispatch: dict[int, Any] = dict(_Python.dispatch)

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.size = len(data)
        self.limit = MAX_PRINTED + MAX_GROWTH * len(data)
        #: What all calls together may be given.
        self.left = self.limit
        self.depths: dict[int, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        return standins.find(module, name)

    def persistent_load(self, pid: Any) -> Any:
        raise PickleRefused("The pickle refers to an object outside itself.")

    def get_extension(self, code: int) -> None:
        raise PickleRefused("The pickle names something by a number of copyreg's registry.")

    def measure(self, value: Any) -> int:
        """Return about how long *value* is when printed.

        Raises:
            PickleRefused: It is longer than a pickle of this length may make, or nested too deep.
        """
        printed = 0
        stack = [(value, 0)]
        while stack:
            item, depth = stack.pop()
            if isinstance(item, (BaseException, Refused)):
                # Celery's Retry is its own first argument.
                item = [part for part in item.args if part is not item]
            if isinstance(item, dict):
                parts = [*item.keys(), *item.values()]
            elif isinstance(item, (list, tuple, set, frozenset, deque)):
                parts = list(item)
            else:
                printed += len(item) if isinstance(item, (str, bytes, bytearray, range)) else 1
                parts = []
            printed += len(parts)
            if printed > self.limit:
                raise PickleRefused("The value refers to its own parts so often that it grows out of bounds.")
            if depth > MAX_DEPTH:
                raise PickleRefused("The value is nested too deep.")
            stack.extend((part, depth + 1) for part in parts)
        return printed

    def _check_call(self, args: Any) -> None:
        """Bound what a function or class is given: it may print, copy or walk all of it."""
        self.left -= self.measure(args)
        if self.left < 0:
            raise PickleRefused("The pickle copies its own parts so often that it grows out of bounds.")

    def load_reduce(self) -> None:
        self._check_call(self.stack[-1])
        super().load_reduce()

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_newobj(self) -> None:
        args = self.stack.pop()
        self._check_call(args)
        self.stack[-1] = standins.new_object(self.stack[-1], *args)

    dispatch[pickle.NEWOBJ[0]] = load_newobj

    def load_newobj_ex(self) -> None:
        kwargs = self.stack.pop()
        args = self.stack.pop()
        self._check_call([args, kwargs])
        self.stack[-1] = standins.new_object(self.stack[-1], *args, **kwargs)

    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex

    def _instantiate(self, klass: Any, args: Any) -> None:
        self._check_call(args)
        super()._instantiate(klass, args)

    def load_build(self) -> None:
        if not standins.may_have_state(self.stack[-2]):
            raise PickleRefused("The pickle sets attributes of something that is no plain instance.")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build

    def load_bytearray8(self) -> None:
        # The original makes the room before it looks whether there are so many bytes.
        (length,) = struct.unpack("<Q", self.read(8))
        if length > self.size:
            raise pickle.UnpicklingError("a bytearray is longer than the pickle")
        self.append(bytearray(self.read(length)))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def _note_depth(self) -> None:
        """Refuse tuples in tuples without end: as a key, hashing one would overflow the C stack."""
        made = self.stack[-1]
        depth = 1 + max((self.depths.get(id(part), 0) for part in made if type(part) is tuple), default=0)
        if depth > MAX_DEPTH:
            raise PickleRefused("The value is nested too deep.")
        self.depths[id(made)] = depth

    def load_tuple(self) -> None:
        super().load_tuple()
        self._note_depth()

    dispatch[pickle.TUPLE[0]] = load_tuple

    def load_tuple1(self) -> None:
        super().load_tuple1()
        self._note_depth()

    dispatch[pickle.TUPLE1[0]] = load_tuple1

    def load_tuple2(self) -> None:
        super().load_tuple2()
        self._note_depth()

    dispatch[pickle.TUPLE2[0]] = load_tuple2

    def load_tuple3(self) -> None:
        super().load_tuple3()
        self._note_depth()

    dispatch[pickle.TUPLE3[0]] = load_tuple3

    def _decode_string(self, value: bytes) -> str | bytes:
        """Return a byte string of Python 2 as the text it was meant to be, if it is one."""
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value

"""What stands in the place of a value that can't or may not be given back.

Made by ``unpickler`` and ``standins``; seen by whoever reads a result.
"""

from __future__ import annotations

from typing import Any


class Unreadable:
    """A stored value that can't be given back; its text says why. False in a condition."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unreadable) and str(other) == str(self)

    def __hash__(self) -> int:
        return hash(str(self))

    def __repr__(self) -> str:
        return f"<unreadable: {self.reason}>"

    __str__ = __repr__

    def __json__(self) -> str:
        return repr(self)


class _RefusedName(type):
    """The class of ``Refused`` classes: a pickle may hold the mere name of what is refused."""

    name: str

    def __repr__(cls) -> str:
        return f"<unreadable: the name {cls.name}>" if cls.name else super().__repr__()


class Refused(Unreadable, metaclass=_RefusedName):
    """What stands for an object that a pickle may not load.

    ``name`` is its dotted name; ``args`` and ``state`` are what it would have been made from.
    """

    name = ""
    args: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Refused:
        self = object.__new__(cls)
        self.args = args
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(
            f"{self.name} is not on the list of what may be loaded; if you trust it, add its module or class "
            "to the setting DJCELERY_UNPICKLE_ALLOW"
        )

    def __getattr__(self, name: str) -> Any:
        # Objects made by __new__ alone never see __init__.
        if name == "reason":
            type(self).__init__(self)
            return self.__dict__["reason"]
        raise AttributeError(name)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        # The class was made for one name, so it can't be found by its own.
        return _refused_object, (self.name, self.args, self.state)

    def append(self, item: Any) -> None:
        """Drop an item of a list subclass."""

    extend = add = update = append

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


def refused(name: str) -> type[Refused]:
    """Return the class that stands for the thing with the dotted name *name*."""
    return type("Refused", (Refused,), {"name": name})


def _refused_object(name: str, args: tuple[Any, ...], state: Any) -> Refused:
    made = refused(name)(*args)
    made.state = state
    return made

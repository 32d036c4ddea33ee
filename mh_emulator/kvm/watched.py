"""Ioctls whose calls can be watched."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Call(NamedTuple):
    """An ioctl that was made, and what came of it."""

    name: str
    arguments: tuple[object, ...]
    result: object
    """What it returned, or the exception that it raised."""


Watcher = Callable[[Call], None]


class Watched(Protocol):
    """A file descriptor with watchers."""

    @property
    def watchers(self) -> list[Watcher]:
        """Called after every ioctl."""


W = TypeVar("W", bound=Watched)


def watched(name: str) -> Callable[[Callable[Concatenate[W, P], T]], Callable[Concatenate[W, P], T]]:
    """Tell the watchers of the method's object of every call of the ioctl `name`, whatever comes of it."""

    def decorate(method: Callable[Concatenate[W, P], T]) -> Callable[Concatenate[W, P], T]:
        @wraps(method)
        def call(self: W, /, *args: P.args, **kwargs: P.kwargs) -> T:
            arguments = (*args, *kwargs.values())
            try:
                result = method(self, *args, **kwargs)
            except Exception as error:
                _tell(self, Call(name, arguments, error))
                raise
            _tell(self, Call(name, arguments, result))
            return result

        return call

    return decorate


def _tell(descriptor: Watched, call: Call) -> None:
    for watcher in descriptor.watchers:
        watcher(call)

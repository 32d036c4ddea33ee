"""Ioctls whose calls can be watched."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

Watcher = Callable[[str], None]


class Watched(Protocol):
    """A file descriptor with watchers."""

    watchers: list[Watcher]


W = TypeVar("W", bound=Watched)


def watched(name: str) -> Callable[[Callable[Concatenate[W, P], T]], Callable[Concatenate[W, P], T]]:
    """Tell the watchers of the method's object the ioctl's `name` at every call, whatever comes of it."""

    def decorate(method: Callable[Concatenate[W, P], T]) -> Callable[Concatenate[W, P], T]:
        @wraps(method)
        def call(self: W, /, *args: P.args, **kwargs: P.kwargs) -> T:
            for watcher in self.watchers:
                watcher(name)
            return method(self, *args, **kwargs)

        return call

    return decorate

"""Objects that other distributions bring, by entry points: engines and geometries.

Names are known without importing anything. Each is imported when it is needed; one that fails is
left out with a warning that names it.
"""

import functools
import logging
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from bilayer_orchestra.errors import OrchestraError

T = TypeVar("T")

_HOME = "bilayer-orchestra"
_log = logging.getLogger(__name__)


class Plugins(Generic[T]):
    """What an entry-point group offers; loaded once per process.

    Parameters
    ----------
    group : str
        Name of the entry-point group.
    what : str
        What one of them is called in messages, such as ``"engine"``.
    accept : callable
        Receives the entry point's name and what it loads, and returns the object to use; raises
        OrchestraError with the reason to leave it out.
    """

    def __init__(self, group: str, what: str, accept: Callable[[str, object], T]) -> None:
        self.group, self.what, self._accept = group, what, accept
        self._loaded: dict[str, T | None] = {}

    @functools.cached_property
    def _points(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for point in sorted(entry_points(group=self.group), key=lambda one: _of(one) != _HOME):
            other = found.setdefault(point.name, point)
            if other.value == point.value:  # installed twice, such as an editable copy
                continue
            raise OrchestraError(
                f"two distributions bring the {self.what} `{point.name}`: {_of(other)} and "
                f"{_of(point)}; uninstall one of them"
            )
        return found

    def names(self) -> tuple[str, ...]:
        """Return the names on offer; nothing is imported."""
        return tuple(self._points)

    def get(self, name: str) -> T | None:
        """Return the one called ``name``; None if there is none, or it had to be left out."""
        if name not in self._points:
            return None
        if name not in self._loaded:
            self._loaded[name] = self._load(self._points[name])
        return self._loaded[name]

    def all(self) -> dict[str, T]:
        """Return all that could be loaded, by name."""
        loaded = {name: self.get(name) for name in self.names()}
        return {name: one for name, one in loaded.items() if one is not None}

    def _load(self, point: EntryPoint) -> T | None:
        try:
            return self._accept(point.name, point.load())
        except OrchestraError as error:
            reason = str(error)
        except Exception as error:  # whatever a guest does must not end the others
            if _of(point) == _HOME:
                raise
            reason = f"{type(error).__name__}: {error}"
        _log.warning("the %s `%s` of %s is left out: %s", self.what, point.name, _of(point), reason)
        return None


def _of(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unknown distribution"

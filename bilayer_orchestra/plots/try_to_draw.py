"""A picture may fail, the result that it shows may not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from bilayer_orchestra.errors import OrchestraError

T = TypeVar("T")


def draw(make: Callable[[], T]) -> T:
    """Return what ``make`` draws; whatever goes wrong is said in one line.

    Raises
    ------
    OrchestraError
        If the drawing library is missing, broken, or fails.
    """
    # of a notebook, say: matplotlib stops at one that it does not know, and none is needed
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        return make()
    except OrchestraError:
        raise
    except ModuleNotFoundError as error:
        raise OrchestraError(f"pictures need {error.name}: pip install matplotlib") from error
    except Exception as error:
        text = str(error).strip().partition("\n")[0]
        raise OrchestraError(f"drawing failed: {type(error).__name__}: {text}") from error
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


def try_to_draw(make: Callable[[], T], say: Callable[[str], None]) -> T | None:
    """Return what ``make`` draws; None if it fails, and ``say`` why."""
    try:
        return draw(make)
    except OrchestraError as error:
        say(f"no picture: {error}")
        return None


def check_style(style: Path | None) -> None:
    """Refuse a style that is none before anything is computed."""
    if style is None:
        return

    def load() -> None:
        from bilayer_orchestra.plots.common import own_style

        with own_style(style):
            pass

    draw(load)

"""One model, independent many-body engines, one labelled dataset, an honest verdict.

::

    import bilayer_orchestra as bo

    model = bo.load_model("model.yaml").replace(t_perp=0.3)
    result = bo.run(model, engine="block2")
    verdict = bo.check(model)

The names below are the public interface; what is promised of them is in docs/python.md. Nothing
heavy is imported before it is needed.
"""

import logging
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bilayer_orchestra.analysis.limits import extrapolate
    from bilayer_orchestra.api import check, list_engines, run, sweep
    from bilayer_orchestra.checking.verdict import Verdict
    from bilayer_orchestra.dataset.schema import open_result
    from bilayer_orchestra.errors import OrchestraError
    from bilayer_orchestra.fits.datasets import fit
    from bilayer_orchestra.model.spec import Model, load_model

__version__ = "0.2.0.dev0"

__all__ = [
    "Model",
    "OrchestraError",
    "Verdict",
    "check",
    "extrapolate",
    "fit",
    "list_engines",
    "load_model",
    "open_result",
    "run",
    "sweep",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if sys.platform == "win32":
        from bilayer_orchestra.errors import NO_WINDOWS, OrchestraError

        raise OrchestraError(NO_WINDOWS)
    return getattr(import_module(f"{__name__}.api"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

"""What a user may ask of a fit, and what is refused before anything is fitted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from bilayer_orchestra.dataset.reading import need_chains
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.observables import FITTED

#: How K follows from the exponent eta of C ~ r^-eta, per correlation. K is derived only.
CONVENTIONS = {
    "luther-emery": "pair ~ r^(-1/K), density ~ r^(-K): K_rho of a spin-gapped chain; "
    "larger K: stronger pairing",
    "boson": "pair ~ r^(-1/(2K)), density ~ r^(-2K): pairs as bosons, hard-core bosons have K = 1; "
    "larger K: stronger pairing",
    "stiffness": "pair ~ r^(-K), density ~ r^(-1/K): smaller K: stronger pairing",
}


@dataclass(frozen=True)
class Options:
    """What a user may fix.

    Parameters
    ----------
    r_min, r_max, edge : int or None
        Fix the window instead of scanning (r_min, edge) or using all distances (r_max).
        Positions count from 1: ``edge = 1`` leaves no site out.
    power : float or None
        The power a of a Green function; None: a = 0 and a free compete.
    wave_vector : float or None
        Where the search for the oscillation starts, 0 to pi per site.
    replicas : int
        Bootstrap replicas.
    resampling : {"gaussian", "blocks"}

    Raises
    ------
    OrchestraError
        If a value has no meaning for any data; :meth:`check` knows the length of the chain.
    """

    r_min: int | None = None
    r_max: int | None = None
    edge: int | None = None
    power: float | None = None
    wave_vector: float | None = None
    replicas: int = 1000
    resampling: str = "gaussian"

    def __post_init__(self) -> None:
        """Refuse what no data can be fitted with."""
        self.check()

    def check(self, length: float = np.inf) -> None:
        """Refuse what chains of ``length`` sites cannot be fitted with; NaN is in no range."""
        for name, low, high in (
            ("r_min", 1, length - 2),
            ("r_max", 2, length - 1),
            ("edge", 1, np.floor(length / 2)),
            ("power", 0, 10),
            ("wave_vector", 0, np.pi),
            ("replicas", 100, 100_000),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                most = "or more" if high == np.inf else f"to {high:.4g}"
                raise OrchestraError(f"{name} = {value}: should be {low} {most}")
        if self.r_max is not None and self.r_max <= (self.r_min or 0):
            raise OrchestraError(f"r_max = {self.r_max}: should exceed r_min = {self.r_min}")


def check_request(
    dataset: xr.Dataset,
    what: Iterable[str],
    layers: Iterable[str],
    boundary: str | None,
    beta: float | None,
    convention: str,
    options: Options,
) -> None:
    """Raise OrchestraError if a fit is asked for that no point of ``dataset`` can have.

    Parameters
    ----------
    dataset : Dataset
        A result or a sweep.
    what, layers : iterable of str
        Kinds of fits, and the layers that they are made of.
    boundary, beta, convention, options
        As of :func:`bilayer_orchestra.fits.datasets.fit`.
    """
    need_chains(dataset.dims, "fits")
    choices: list[tuple[str, str, Iterable[str]]] = [
        *(("what", one, FITTED) for one in what),
        *(("layer", one, [*map(str, dataset["layer"].values)]) for one in layers),
        ("boundary", boundary or "open", ("open", "periodic")),
        ("convention", convention, CONVENTIONS),
    ]
    for name, value, allowed in choices:
        if value not in allowed:
            raise OrchestraError(f"{name} = {value}: should be {' or '.join(allowed)}")
    if beta is not None and not beta > 0:
        raise OrchestraError(f"beta = {beta:g}: should be positive (inf is T = 0)")
    options.check(dataset.sizes["x"])

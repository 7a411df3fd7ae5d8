"""Terms: the model without physics words, from which every backend starts.

    H = sum_ij h_ij sum_s c+_{i,s} c_{j,s} + sum_i U_i n_{i,up} n_{i,dn} - sum_i mu_i n_i

Only this module and the geometries in :mod:`bilayer_orchestra.model` know the site order; a
backend sees the sites 0..N-1 and their labels.
"""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class Site(NamedTuple):
    """Label of one site of coupled chains: the layer's name and the position along the chain.

    Other geometries may have other named tuples: their fields become dimensions of datasets.
    """

    layer: str
    x: int


class Canonical(NamedTuple):
    """The ground state (T = 0) with fixed particle numbers of each spin."""

    n_up: int
    n_down: int


class GrandCanonical(NamedTuple):
    """The thermal state at inverse temperature ``beta`` with the sites' chemical potentials."""

    beta: float


@dataclass(frozen=True, eq=False)
class Terms:
    """Hamiltonian and state on ``N`` labelled sites.

    Parameters
    ----------
    sites : tuple of Site, or of another named tuple
        Labels, in the order in which matrices are indexed.
    one_body : array, shape (N, N)
        Real symmetric ``h``; the hopping of amplitude t enters as ``h_ij = -t``. No chemical
        potential in it.
    interaction : array, shape (N,)
        ``U_i`` of the plain product ``U_i n_up n_dn``.
    chemical_potential : array, shape (N,)
        ``mu_i``; enters H as ``-mu_i n_i`` in both ensembles. It shapes the state, but is not part
        of the reported energy.
    state : Canonical or GrandCanonical
        What is asked for.

    Raises
    ------
    ValueError
        If shapes differ, a number is not finite, ``one_body`` is not symmetric, labels repeat, or
        the particle numbers do not fit.
    """

    sites: tuple[Any, ...]
    one_body: FloatArray
    interaction: FloatArray
    chemical_potential: FloatArray
    state: Canonical | GrandCanonical

    def __post_init__(self) -> None:
        n = len(self.sites)
        if n == 0 or len(set(self.sites)) != n:
            raise ValueError("sites must be non-empty and have distinct labels")
        if len({site._fields for site in self.sites}) != 1:
            raise ValueError("the labels of the sites must have the same fields")
        shapes = {"one_body": (n, n), "interaction": (n,), "chemical_potential": (n,)}
        for name, shape in shapes.items():
            array = np.array(getattr(self, name), dtype=float)
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} contains NaN or infinity")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if not np.array_equal(self.one_body, self.one_body.T):
            raise ValueError("one_body must be symmetric")
        if isinstance(self.state, Canonical):
            if not (0 <= self.state.n_up <= n and 0 <= self.state.n_down <= n):
                raise ValueError(f"{self.state} does not fit on {n} sites")
        elif not (np.isfinite(self.state.beta) and self.state.beta > 0):
            raise ValueError("beta must be positive and finite")

    @property
    def n_sites(self) -> int:
        """Number of sites N."""
        return len(self.sites)

    @property
    def dims(self) -> tuple[str, ...]:
        """Dimensions of a function of a site: the fields of the labels."""
        fields: tuple[str, ...] = self.sites[0]._fields
        return fields

    @property
    def layers(self) -> tuple[str, ...]:
        """Layer names in order of first appearance."""
        return tuple(dict.fromkeys(site.layer for site in self.sites))

    @property
    def length(self) -> int:
        """Number of positions along the chain."""
        return 1 + max(int(site.x) for site in self.sites)

    @property
    def hopping(self) -> FloatArray:
        """``one_body`` without its diagonal, shape (N, N)."""
        return self.one_body - np.diag(self.one_body.diagonal())

    @property
    def energy_scale(self) -> float:
        """Largest hopping amplitude, or a quarter of the largest interaction; 1 if there is none.

        What vanishes, or is degenerate, is judged on this scale.
        """
        largest = max(np.abs(self.hopping).max(), np.abs(self.interaction).max() / 4)
        return float(largest) or 1.0

    def centred(self) -> Terms:
        """Return the same ground state with its site energies around zero.

        With fixed particle numbers a constant in the chemical potentials is one in H: it changes no
        state, but energies of its size would drown small gaps in their rounding. What goes is the
        middle between the largest and the smallest h_ii - mu_i. A grand-canonical state depends on
        the constant and is returned as it is.
        """
        if not isinstance(self.state, Canonical):
            return self
        levels = self.one_body.diagonal() - self.chemical_potential
        middle = 0.5 * (levels.max() + levels.min())
        return replace(self, chemical_potential=self.chemical_potential + middle)

    def in_units(self, unit: float) -> Terms:
        """Return the same model with all energies divided by ``unit``."""
        return replace(
            self,
            one_body=self.one_body / unit,
            interaction=self.interaction / unit,
            chemical_potential=self.chemical_potential / unit,
        )

    def permuted(self, order: list[int]) -> Terms:
        """Return the same model with site ``order[k]`` at place ``k``."""
        index = np.asarray(order)
        return replace(
            self,
            sites=tuple(self.sites[k] for k in order),
            one_body=self.one_body[np.ix_(index, index)],
            interaction=self.interaction[index],
            chemical_potential=self.chemical_potential[index],
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python data (for JSON) from which :meth:`from_dict` restores this."""
        labels = {} if self.dims == Site._fields else {"dims": list(self.dims)}
        return labels | {
            "sites": [list(site) for site in self.sites],
            "one_body": self.one_body.tolist(),
            "interaction": self.interaction.tolist(),
            "chemical_potential": self.chemical_potential.tolist(),
            "state": self.state._asdict(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Terms:
        """Restore Terms from :meth:`to_dict`; floats survive JSON exactly."""
        state = data["state"]
        label = namedtuple("Label", data["dims"]) if "dims" in data else Site
        return cls(
            sites=tuple(label(*values) for values in data["sites"]),
            one_body=np.array(data["one_body"]),
            interaction=np.array(data["interaction"]),
            chemical_potential=np.array(data["chemical_potential"]),
            state=GrandCanonical(**state) if "beta" in state else Canonical(**state),
        )

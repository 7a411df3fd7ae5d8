"""One observable of a dataset as a vector of independent elements, in classes that are judged.

Two-point functions are symmetric (real Hamiltonian, real averages): one of each pair (i, j), (j, i)
is kept, so that nothing is counted twice. That they are symmetric is tested by
:mod:`bilayer_orchestra.checking.identities`.

Correlations decay: an error bar that is nothing beside the neighbours' correlation may be larger
than that of distant sites. Elements of one observable are therefore judged in classes, one for
each pair of layers and distance, and an observable agrees up to the distance to which each of its
classes would have shown a deviation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bilayer_orchestra.analysis.estimates import at_least_common
from bilayer_orchestra.dataset.reading import NOT_STATED, mirrored, systematics_of
from bilayer_orchestra.observables import ENERGY_UNITS, INVERSE_ENERGY_UNITS, OBSERVABLES
from bilayer_orchestra.terms import FloatArray, Terms


class Elements(NamedTuple):
    """The elements of one observable of one result.

    Parameters
    ----------
    values : array, shape (p,)
    deviations : array, shape (blocks, p)
        Their squares sum to the covariance.
    degrees : float
        Degrees of freedom of the covariance; infinite if it is known.
    systematics : dict
        Named systematic error -> its size, shape (p,). Judged by what the dataset states, whoever
        computed it: an error that is named and not a number, or no statement at all, counts as not
        estimated (NaN), never as zero.
    labels : list of str
        Where they are.
    """

    values: FloatArray
    deviations: FloatArray
    degrees: float
    systematics: dict[str, FloatArray]
    labels: list[str]

    @property
    def stderr(self) -> FloatArray:
        """Standard error, shape (p,); zero without statistical errors."""
        return np.asarray(np.sqrt(np.sum(self.deviations**2, axis=0)))

    @property
    def bound(self) -> FloatArray:
        """What the size of every element can be at most, errors included; inf if not known."""
        bound = np.abs(self.values) + 3 * self.stderr
        return np.nan_to_num(sum(self.systematics.values(), bound), nan=np.inf)

    def of(self, places: NDArray[np.intp]) -> Elements:
        """Return the elements at these places."""
        return Elements(
            self.values[places],
            self.deviations[:, places],
            self.degrees,
            {what: size[places] for what, size in self.systematics.items()},
            [self.labels[k] for k in places],
        )


def elements_of(dataset: xr.Dataset, name: str) -> Elements:
    """Return observable ``name`` of ``dataset`` in the canonical order of labels."""
    values = ordered(dataset[name], name)
    keep = kept(values)
    deviations, degrees = np.zeros((0, int(keep.sum()))), np.inf
    if f"{name}_deviation" in dataset:
        variable = ordered(dataset[f"{name}_deviation"], name, "block")
        deviations = variable.values[:, keep].astype(float)
        degrees = float(dataset[name].attrs["covariance_degrees_of_freedom"])
    elif f"{name}_stderr" in dataset:  # errors without a covariance: independent elements
        deviations = np.diag(vector(dataset[f"{name}_stderr"], name))
    labels = [
        " ".join(
            f"{dim}={values[dim].values[k]}" for dim, k in zip(values.dims, index, strict=True)
        )
        for index in np.argwhere(keep)
    ]
    named, systematics = systematics_of(dataset), {}
    if named is None:
        systematics[NOT_STATED] = np.full(len(labels), np.nan)
    elif named:
        bias = np.abs(vector(dataset[f"{name}_bias"], name))
        systematics[" and ".join(named)] = at_least_common(bias, 1.0)
    return Elements(values.values[keep], deviations, degrees, systematics, labels)


def vector(array: xr.DataArray, name: str) -> FloatArray:
    """Return ``array``, of the dimensions of observable ``name``, as :func:`elements_of` does."""
    values = ordered(array, name)
    return np.asarray(values.values[kept(values)], dtype=float)


def labelled(flat: FloatArray, like: xr.DataArray) -> xr.DataArray:
    """Put a vector of elements back into the shape of ``like``; the other triangle is mirrored.

    Parameters
    ----------
    flat : array, shape (p,)
        In the order of :func:`elements_of`.
    like : DataArray
        As :func:`ordered` returns it.
    """
    result = xr.full_like(like, np.nan, dtype=float)
    result.attrs = {}
    result.values[kept(like)] = flat
    return result.fillna(mirrored(result)) if "x_" in result.dims else result


def kept(values: xr.DataArray) -> NDArray[np.bool_]:
    """Return which elements are compared: one of each symmetric pair."""
    if "x_" not in values.dims:
        return np.ones(values.shape, dtype=bool)
    shape = values.sizes["layer"], values.sizes["x"]
    order = np.arange(shape[0] * shape[1]).reshape(shape)
    upper = order[:, :, None, None] <= order[None, None, :, :]
    return np.broadcast_to(upper, values.shape)


def ordered(array: xr.DataArray, name: str, *leading: str) -> xr.DataArray:
    """Return ``array`` with its labels sorted and its dimensions as the observable's.

    Parameters
    ----------
    array : DataArray
        Of the dimensions of the observable, and ``leading`` ones.
    name : str
        Of the observable.
    *leading : str
        Dimensions that come first.
    """
    dims = OBSERVABLES[name].dims
    by = [dim for dim in dims if dim in array.coords]
    return (array.sortby(by) if by else array).transpose(*leading, *dims)


class ElementClass(NamedTuple):
    """Elements of one observable that are judged together.

    Parameters
    ----------
    name : str
        ``"P at 3"``, ``"M-P at 1"``; a layer for functions of one site, "" for scalars.
    distance : int
        Steps from one site to the other: along the chains, and one more from layer to layer.
        0 for elements that are no correlation of two sites.
    repeats : bool
        Whether another observable of the same result fixes these elements.
    members : int array
        Places in the vector of elements.
    """

    name: str
    distance: int
    repeats: bool
    members: NDArray[np.intp]


def classes_of(dataset: xr.Dataset, name: str, ring: bool) -> list[ElementClass]:
    """Return the classes of observable ``name``, ordered by distance.

    Parameters
    ----------
    dataset : Dataset
        A result.
    name : str
        Of the observable.
    ring : bool
        Whether the ends of its chains meet.
    """
    observable, values = OBSERVABLES[name], ordered(dataset[name], name)
    index = np.argwhere(kept(values))
    if "layer" not in values.dims:
        return [ElementClass("", 0, False, np.arange(len(index)))]
    place = {dim: values[dim].values[index[:, k]] for k, dim in enumerate(values.dims)}
    layer, other = place["layer"], place.get("layer_", place["layer"])
    along = np.abs(place["x"] - place.get("x_", place["x"]))
    if ring:
        along = np.minimum(along, values.sizes["x"] - along)
    members: dict[tuple[int, str], list[int]] = {}
    for k, (one, two, steps) in enumerate(zip(layer, other, along + (layer != other), strict=True)):
        layers = "-".join(sorted({str(one), str(two)}))
        members.setdefault((int(steps), layers), []).append(k)
    repeated = bool(observable.fixed_on_site) and set(observable.fixed_on_site) <= set(dataset)
    return [
        ElementClass(
            f"{layers} {f'at {steps}' if steps else 'on site'}" if observable.two_point else layers,
            steps,
            repeated and steps == 0,
            np.array(places),
        )
        for (steps, layers), places in sorted(members.items())
    ]


def natural_scale(name: str, terms: Terms | None) -> float:
    """Return the size of observable ``name`` in a model where nothing cancels.

    Averages of occupations and their products are of order 1, energies of the number of sites times
    the largest coupling. What vanishes by symmetry is compared on this scale. Without ``terms`` (a
    geometry that is not installed here) the unit of energy stands for the couplings.
    """
    sites, energy = (terms.n_sites, terms.energy_scale) if terms is not None else (1, 1.0)
    scales = {ENERGY_UNITS: sites * energy, INVERSE_ENERGY_UNITS: 1.0 / energy}
    return scales.get(OBSERVABLES[name].units, 1.0)

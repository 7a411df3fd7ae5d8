"""Classes of elements, to which a verdict and its power belong.

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

from bilayer_orchestra.checking.elements import kept, ordered
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.spec import Model, stored_model
from bilayer_orchestra.observables import ENERGY_UNITS, INVERSE_ENERGY_UNITS, OBSERVABLES
from bilayer_orchestra.terms import Terms


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


def solved_model(dataset: xr.Dataset) -> Model | None:
    """Return the model of a result; None if its geometry is not installed here."""
    try:
        return stored_model(str(dataset.attrs["model"]))
    except OrchestraError:
        return None


def natural_scale(name: str, terms: Terms | None) -> float:
    """Return the size of observable ``name`` in a model where nothing cancels.

    Averages of occupations and their products are of order 1, energies of the number of sites times
    the largest coupling. What vanishes by symmetry is compared on this scale. Without ``terms`` (a
    geometry that is not installed here) the unit of energy stands for the couplings.
    """
    sites, energy = (terms.n_sites, terms.energy_scale) if terms is not None else (1, 1.0)
    return {ENERGY_UNITS: sites * energy, INVERSE_ENERGY_UNITS: 1.0 / energy}.get(
        OBSERVABLES[name].units, 1.0
    )

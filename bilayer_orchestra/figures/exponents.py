"""What decides the decay of the correlations, along an axis: K of the pairs, 1/xi of the metal."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.figure import Figure as Picture

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.figures.common import legend, positions
from bilayer_orchestra.fits.fit import fit
from bilayer_orchestra.study.figure import Figure

#: (kind of fit, its parameter, layer, title). The metal's length xi comes from its Green function;
#: its inverse is shown, which has an error bar also where the data allow an infinite xi.
_SHOWN = (
    ("pair", "K", "P", "$K_P$"),
    ("pair", "K", "M", "$K_M$"),
    ("green", "inverse_xi", "M", r"$1/\xi_M$"),
)


def fits(dataset: xr.Dataset) -> xr.Dataset:
    """Fit pairs in both layers and the metal's Green function, at every point that has them.

    Raises
    ------
    OrchestraError
        If nothing can be fitted.
    """
    found, refused = [], []
    for what, layers in (("pair", None), ("green", ["M"])):
        try:
            # the scans of windows, of different number for each kind, are in `orchestra fit`
            found.append(fit(dataset, what, layers).drop_dims(["window", "r"]))
        except OrchestraError as error:
            refused.append(str(error))
    if not found:
        raise OrchestraError("; ".join(refused))
    return xr.merge(found, join="outer", combine_attrs="override", compat="no_conflicts")


def exponents(dataset: xr.Dataset, figure: Figure, numbers: xr.Dataset) -> Picture:
    """Draw K_P, K_M and 1/xi_M of ``numbers`` (see :func:`fits`) against ``along``."""
    picture, axes = plt.subplots(1, 3, figsize=(11.0, 3.6), layout="constrained")
    abscissa = numbers[figure.along].values
    convention = numbers["pair_K"].attrs["convention"] if "pair_K" in numbers else ""
    for axis, (what, name, layer, title) in zip(axes, _SHOWN, strict=True):
        variable = f"{what}_{name}"
        for label, inside in positions(numbers, figure.panels):
            if variable not in inside:
                continue
            one = inside.sel(layer=layer).squeeze(drop=True)
            value = one[variable].transpose(figure.along).values
            parts = [one[f"{variable}_{kind}"].values for kind in ("stderr", "systematic")]
            error = np.hypot(*(np.nan_to_num(part) for part in parts))
            there = np.isfinite(value)
            axis.errorbar(abscissa[there], value[there], error[there], fmt="o-", ms=4, label=label)
        axis.set(xlabel=figure.along, title=title)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel(f"convention: {convention}", fontsize="small")
    legend(axes[0])
    return picture

"""What decides the decay of the correlations, along an axis: K of the pairs, 1/xi of the metal."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure as Picture

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.fits.datasets import fit
from bilayer_orchestra.plots.study_axes import grid, legend, positions
from bilayer_orchestra.study.figure import Figure

#: (kind of fit, its parameter, layer, name). The metal's length xi comes from its Green function;
#: its inverse is shown, which has an error bar also where the data allow an infinite xi.
_SHOWN = (
    ("pair", "K", "P", "$K_P$"),
    ("pair", "K", "M", "$K_M$"),
    ("green", "inverse_xi", "M", r"$1/\xi_M$"),
)
#: What stands below the picture.
NOTE = (
    "bars: statistical and systematic errors of the fits; open markers: input not converged; "
    "not shown: the data do not determine the fit"
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


def exponents(numbers: xr.Dataset, figure: Figure) -> Picture:
    """Draw K_P, K_M and 1/xi_M of ``numbers`` (see :func:`fits`) against ``along``."""
    picture, ((*axes,),) = grid(1, 3)
    abscissa = numbers[figure.along].values
    convention = numbers["pair_K"].attrs["convention"] if "pair_K" in numbers else ""
    axes[1].sharey(axes[0])
    for axis, (what, name, layer, symbol) in zip(axes, _SHOWN, strict=True):
        variable = f"{what}_{name}"
        # the same colour for the same position in all panels
        for k, (label, inside) in enumerate(positions(numbers, figure.panels)):
            if variable not in inside or layer not in inside["layer"]:
                continue
            one = inside.sel(layer=layer).squeeze(drop=True)
            value = one[variable].transpose(figure.along).values
            parts = [one[f"{variable}_{kind}"].values for kind in ("stderr", "systematic")]
            error = np.hypot(*(np.nan_to_num(part) for part in parts))
            axis.errorbar(abscissa, value, error, fmt="o-", ms=4, color=f"C{k}", label=label)
            doubtful = np.where(one[f"{what}_input_converged"].values == 0, value, np.nan)
            axis.plot(abscissa, doubtful, "o", ms=4, color=f"C{k}", markerfacecolor="white")
        axis.set(xlabel=figure.along, ylabel=symbol)
        if name == "K":
            axis.set_ylim(bottom=0)
            axis.set_title(f"convention: {convention}", fontsize="small")
        else:
            axis.axhline(0, color="black", lw=0.5)
    if abscissa.dtype.kind in "if":
        for axis in axes:
            axis.set_xticks(sorted(abscissa))
    legend(picture)
    return picture

"""What decides the decay of the correlations, along an axis: K of the pairs, 1/xi of the metal."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure as Picture

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.fits.datasets import fit
from bilayer_orchestra.plots.study_axes import grid, legend, positions
from bilayer_orchestra.study.spec import Figure

#: What stands below the picture.
NOTE = (
    "bars: statistical and systematic errors of the fits; open markers: input not converged; "
    "not shown: the data do not determine the fit"
)


def _shown(layers: list[str]) -> list[tuple[str, str, str, str]]:
    """Return (kind of fit, its parameter, layer, name) of every panel.

    The metal is the last layer. Its length xi comes from its Green function; the inverse is shown,
    which has an error bar also where the data allow an infinite xi.
    """
    pairs = [("pair", "K", layer, f"$K_{{{layer}}}$") for layer in layers]
    return [*pairs, ("green", "inverse_xi", layers[-1], rf"$1/\xi_{{{layers[-1]}}}$")]


def fits(dataset: xr.Dataset) -> xr.Dataset:
    """Fit pairs in all layers and the metal's Green function, at every point that has them.

    Raises
    ------
    OrchestraError
        If nothing can be fitted.
    """
    found, refused = [], []
    for what, layers in (("pair", None), ("green", [str(dataset["layer"].values[-1])])):
        try:
            # the scans of windows, of different number for each kind, are in `orchestra fit`
            found.append(fit(dataset, what, layers).drop_dims(["window", "r"]))
        except OrchestraError as error:
            refused.append(str(error))
    if not found:
        raise OrchestraError("; ".join(refused))
    merged = xr.merge(found, join="outer", combine_attrs="override", compat="no_conflicts")
    return merged.reindex(layer=dataset["layer"].values)  # an outer join sorts the names


def exponents(numbers: xr.Dataset, figure: Figure) -> Picture:
    """Draw K of all layers and 1/xi of the metal (see :func:`fits`) against ``along``."""
    shown = _shown([str(layer) for layer in numbers["layer"].values])
    picture, ((*axes,),) = grid(1, len(shown))
    abscissa = numbers[figure.along].values
    convention = numbers["pair_K"].attrs["convention"] if "pair_K" in numbers else ""
    for axis in axes[1:-1]:
        axis.sharey(axes[0])
    for axis, (what, name, layer, symbol) in zip(axes, shown, strict=True):
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

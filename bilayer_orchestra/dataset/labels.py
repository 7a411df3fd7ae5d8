"""What the labels of sites allow."""

from __future__ import annotations

from collections.abc import Iterable

from bilayer_orchestra.errors import OrchestraError


def need_chains(dims: Iterable[object], what: str) -> None:
    """Refuse sites that are not labelled by layer and x.

    Parameters
    ----------
    dims : iterable
        Labels of sites, or all dimensions of a dataset.
    what : str
        Needs the chains, in the plural.
    """
    found = [str(dim) for dim in dims if dim != "spin" and not str(dim).endswith("_")]
    if not {"layer", "x"} <= set(found):
        raise OrchestraError(
            f"{what} need chains, whose sites are labelled by layer and x; here are "
            f"{', '.join(found)}"
        )

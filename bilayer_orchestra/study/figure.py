"""How the dataset of a study is drawn: the ``figure`` section of a study file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bilayer_orchestra.settings import SpecModel

Kind = Literal["decay", "comparison", "exponents", "temperature"]


class Figure(SpecModel):
    """One figure of a study.

    ``decay``: pair and density correlations of both layers against distance, a curve for each value
    of ``along``. ``comparison``: pair and density correlations in one panel for each layer.
    ``exponents``: what decides how the correlations decay (K of pairs, the metal's length xi) along
    an axis. ``temperature``: correlators at several temperatures, on top of the ground state's.
    """

    kind: Annotated[Kind, Field(description="decay, comparison, exponents or temperature")]
    along: Annotated[
        str, Field(min_length=1, description="the axis of the curves, or of the abscissa")
    ]
    panels: Annotated[
        str | None, Field(description="the axis whose values get panels of their own, or colours")
    ] = None
    reference: Annotated[
        str | None,
        Field(description="temperature: the value of `along` that is the ground state [the first]"),
    ] = None
    title: Annotated[str, Field(max_length=200)] = ""

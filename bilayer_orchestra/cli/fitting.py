"""``orchestra fit`` and ``orchestra extrapolate``."""

from pathlib import Path
from typing import Annotated

import typer

from bilayer_orchestra.cli.exit_codes import ExitCode
from bilayer_orchestra.cli.options import Style

#: A table of fits is read as a whole: a narrow terminal must not cut it into columns.
_LEAST_WIDTH = 110


def fit(
    result: Annotated[Path, typer.Argument(metavar="RESULT.nc", help="a result or a sweep")],
    what: Annotated[
        list[str] | None, typer.Option(help="pair, density, green; repeatable [what is there]")
    ] = None,
    layer: Annotated[list[str] | None, typer.Option(help="repeatable [all layers]")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="directory [that of the result]")
    ] = None,
    boundary: Annotated[str | None, typer.Option(help="open or periodic [the model's]")] = None,
    beta: Annotated[
        float | None, typer.Option(help="inverse temperature, inf: T = 0 [the model's]")
    ] = None,
    convention: Annotated[
        str, typer.Option(help="of the derived K: luther-emery, boson or stiffness")
    ] = "luther-emery",
    r_min: Annotated[int | None, typer.Option(help="smallest distance [scanned]")] = None,
    r_max: Annotated[int | None, typer.Option(help="largest distance [all]")] = None,
    edge: Annotated[
        int | None, typer.Option(help="first site of an open chain that counts, from 1 [chosen]")
    ] = None,
    power: Annotated[
        float | None, typer.Option(help="a of exp(-r/xi) r^-a [0 and free compete]")
    ] = None,
    wave_vector: Annotated[
        float | None, typer.Option(help="where the search for the oscillation starts [a peak]")
    ] = None,
    replicas: Annotated[int, typer.Option(help="bootstrap replicas")] = 1000,
    plot: Annotated[bool, typer.Option(help="draw fit.png")] = True,
    style: Style = None,
) -> None:
    """Fit decay exponents and lengths; print a table, leave fit.nc and fit.png."""
    from bilayer_orchestra.cli.fit_tables import fit_table, remarks
    from bilayer_orchestra.dataset.parameters import model_data, parameters
    from bilayer_orchestra.dataset.schema import open_result, write_atomic
    from bilayer_orchestra.display.console import output_console
    from bilayer_orchestra.errors import OrchestraError
    from bilayer_orchestra.fits import datasets
    from bilayer_orchestra.fits.options import Options, check_request
    from bilayer_orchestra.observables import FITTED
    from bilayer_orchestra.plots.try_to_draw import check_style, try_to_draw
    from bilayer_orchestra.running.published import FITS, make_room, owner, refuse_own_source

    console = output_console(_LEAST_WIDTH)
    check_style(style)
    dataset, target = open_result(result), output or result.parent
    table, drawn = (target / name for name in FITS)
    refuse_own_source(table, result)
    options = Options(r_min, r_max, edge, power, wave_vector, replicas)
    kinds = list(dict.fromkeys(what or [])) or [k for k in FITTED if FITTED[k] in dataset]
    check_request(dataset, kinds, layer or [], boundary, beta, convention, options)
    if power is not None and "green" not in kinds:
        raise OrchestraError(f"power = {power:g}: only the fit of green has a power")
    name = dataset.attrs.get("model_name", "")
    console.say(f"{result}: {name}, {parameters(model_data(dataset))}")
    fitted = []
    for kind in kinds:
        try:
            one = datasets.fit(
                *(dataset, kind, layer),
                boundary=boundary,
                beta=beta,
                convention=convention,
                options=options,
            )
        except OrchestraError as error:  # does not stop the others
            console.say(f"no fit: {error}")
            continue
        fitted.append(one)
        console.print(fit_table(one, kind))
        for line in remarks(one, kind):
            console.say(line)
    if not fitted:
        raise OrchestraError(f"nothing in {result} could be fitted")
    merged = datasets.merged(fitted)
    make_room(target, FITS, owner(merged), console.say)
    write_atomic(merged, table)
    console.say(f"fits     {table}")

    def picture() -> bool:
        from bilayer_orchestra.plots.fitted import draw_fits

        return draw_fits(merged, drawn, style)

    if plot and try_to_draw(picture, console.say):
        console.say(f"picture  {drawn}")
    else:  # one of other options would be taken for that of these
        drawn.unlink(missing_ok=True)
    if what and len(fitted) < len(kinds):
        raise typer.Exit(ExitCode.FAILED)


def extrapolate(
    result: Annotated[Path, typer.Argument(metavar="SWEEP.nc", help="a collected sweep")],
    model: Annotated[
        str, typer.Option(help="truncation, trotter, size, size2, power (of T) or gap")
    ],
    dim: Annotated[str | None, typer.Option(help="dimension [the model's usual one]")] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="variable; repeatable [all without positions]")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="directory [that of the sweep]")
    ] = None,
) -> None:
    """Extrapolate a sweep: discarded weight, dtau, 1/L or T to zero; leave limit.nc."""
    from bilayer_orchestra.analysis import limits
    from bilayer_orchestra.cli.fit_tables import limit_table
    from bilayer_orchestra.dataset.schema import append_history, open_result, write_atomic
    from bilayer_orchestra.display.console import output_console
    from bilayer_orchestra.errors import OrchestraError
    from bilayer_orchestra.observables import COMPANION
    from bilayer_orchestra.running.published import LIMIT, make_room, owner, refuse_own_source

    console = output_console(_LEAST_WIDTH)
    dataset, target = open_result(result, ("a collected sweep",)), output or result.parent
    path = target / LIMIT[0]
    refuse_own_source(path, result)
    if model not in limits.MODELS:
        raise OrchestraError(f"unknown model {model!r}; choose from {', '.join(limits.MODELS)}")
    dim = dim or limits.MODELS[model].dim
    names = name or [
        str(key)
        for key, variable in dataset.data_vars.items()
        if dim in variable.dims
        and variable.dtype.kind == "f"
        and "x" not in variable.dims
        and not COMPANION.search(str(key))
    ]
    found = limits.extrapolate(dataset, dim, model, names)
    console.say(f"{limits.MODELS[model].formula} over {dim}, {dataset.sizes[dim]} values")
    console.print(limit_table(found, names))
    console.say(
        "+- statistical, ~ change without the point farthest from the limit; -: not determined by "
        "these points"
    )
    kept = ("model", "model_name", "study_name", "run", "history")
    found.attrs = {key: dataset.attrs[key] for key in kept if key in dataset.attrs}
    found.attrs["orchestra_limit_schema"] = 1
    append_history(found, f"extrapolated {', '.join(names)} over {dim} ({model})")
    make_room(target, LIMIT, owner(found), typer.echo)
    write_atomic(found, path)
    console.say(f"limits   {path}")

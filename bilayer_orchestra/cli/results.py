"""What is made of results: ``orchestra check``, ``fit``, ``extrapolate`` and ``plot``.

What ``check`` does and prints is in :mod:`bilayer_orchestra.cli.verdicts`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from bilayer_orchestra.cli.options import AnyVersion, Overrides
from bilayer_orchestra.errors import ExitCode, OrchestraError
from bilayer_orchestra.plots.try_to_draw import check_style, draw, try_to_draw

if TYPE_CHECKING:
    import xarray as xr

#: A verdict -> its exit code.
EXIT_CODES = {"agree": 0, "disagree": 1, "undecided": 2}


class CheckCommand(TyperCommand):
    """A wrong command line is "could not run", 3; the usual 2 and 1 would be verdicts here."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the command line."""
        try:
            return super().make_context(*args, **kwargs)
        except Exception as error:  # the parser's own class, which typer may or may not bring
            if getattr(error, "exit_code", None) == ExitCode.USAGE:
                error.exit_code = ExitCode.COULD_NOT_RUN  # type: ignore[attr-defined]
            raise


def check(
    targets: list[Path],
    backends: str = "",
    output: Path | None = None,
    overrides: Overrides = None,
    identities: bool = False,
    distance: Annotated[
        int, typer.Option(min=1, help="how far apart sites must agree; less is undecided")
    ] = 1,
    style: Path | None = None,
    any_version: AnyVersion = None,
) -> None:
    """Solve a model with several engines and say whether they agree, also as T goes to 0.

    Leaves check.nc and check.html. Given two or more results instead of a model, compares those.
    With --identities a single result, or every engine's, is tested by sum rules and exact limits.

    They agree up to the distance to which every correlation would have shown a deviation of 20 %.

    Exit code: 0 agree (at least up to --distance), 1 disagree, 2 undecided, 3 could not run.

    Parameters
    ----------
    targets : MODEL.yaml | RESULT.nc ...
        a model file, or stored results
    backends
        comma-separated engines [all that are found and can solve it]
    output
        directory of runs and report [runs/NAME]
    identities
        test each result alone, by exact identities
    """
    from bilayer_orchestra.cli import verdicts

    check_style(style)
    names = [part.strip() for part in backends.split(",")] if backends else []
    asked = verdicts.Asked(targets, names, output, overrides, distance, any_version)
    if identities:
        word = asked.each_alone()
    else:
        stored = any(target.suffix == ".nc" for target in targets)
        outcome, root = asked.compare_results() if stored else asked.compare_engines()
        verdicts.report(outcome, root, style)
        word = outcome.word
    raise typer.Exit(EXIT_CODES[word])


#: Columns of a table of fits, which is read as a whole: a narrow terminal must not cut it.
_LEAST_WIDTH = 110


def fit(
    result: Path,
    what: list[str] | None = None,
    layer: list[str] | None = None,
    output: Path | None = None,
    boundary: str | None = None,
    beta: float | None = None,
    convention: str = "luther-emery",
    r_min: int | None = None,
    r_max: int | None = None,
    edge: int | None = None,
    power: float | None = None,
    wave_vector: float | None = None,
    replicas: int = 1000,
    plot: bool = True,
    style: Path | None = None,
) -> None:
    """Fit decay exponents and lengths; print a table, leave fit.nc and fit.png.

    Parameters
    ----------
    result : RESULT.nc
        a result or a sweep
    what
        pair, density, green; repeatable [what is there]
    layer
        repeatable [all layers]
    output
        directory [that of the result]
    boundary
        open or periodic [the model's]
    beta
        inverse temperature, inf: T = 0 [the model's]
    convention
        of the derived K: luther-emery, boson or stiffness
    r_min
        smallest distance [scanned]
    r_max
        largest distance [all]
    edge
        first site of an open chain that counts, from 1 [chosen]
    power
        a of exp(-r/xi) r^-a [0 and free compete]
    wave_vector
        where the search for the oscillation starts [a peak]
    replicas
        bootstrap replicas
    plot
        draw fit.png
    """
    from bilayer_orchestra.cli.tables import fit_table, remarks
    from bilayer_orchestra.dataset.reading import model_data, parameters
    from bilayer_orchestra.dataset.schema import open_result, write_atomic
    from bilayer_orchestra.display import output_console
    from bilayer_orchestra.fits import datasets
    from bilayer_orchestra.fits.options import Options, check_request
    from bilayer_orchestra.observables import FITTED
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
    about = [dataset.attrs.get("model_name", ""), parameters(model_data(dataset))]
    console.say(f"{result}: {', '.join(about)}")
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
    result: Path,
    model: Annotated[
        str, typer.Option(help="truncation, trotter, size, size2, power (of T) or gap")
    ],
    dim: str | None = None,
    name: list[str] | None = None,
    output: Path | None = None,
) -> None:
    """Extrapolate a sweep: discarded weight, dtau, 1/L or T to zero; leave limit.nc.

    Parameters
    ----------
    result : SWEEP.nc
        a collected sweep
    dim
        dimension [the model's usual one]
    name
        variable; repeatable [all without positions]
    output
        directory [that of the sweep]
    """
    from bilayer_orchestra.analysis import limits
    from bilayer_orchestra.cli.tables import limit_table
    from bilayer_orchestra.dataset.schema import append_history, open_result, write_atomic
    from bilayer_orchestra.display import output_console
    from bilayer_orchestra.observables import COMPANION
    from bilayer_orchestra.running.published import LIMIT, make_room, owner, refuse_own_source

    console = output_console(_LEAST_WIDTH)
    dataset, target = open_result(result, ("a collected sweep",)), output or result.parent
    path = target / LIMIT[0]
    refuse_own_source(path, result)
    dim = dim or (limits.MODELS[model].dim if model in limits.MODELS else "")
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


def plot(
    target: Path,
    output: Path | None = None,
    runs: Path | None = None,
    style: Path | None = None,
) -> None:
    """Draw the figure of a study, or the correlations of one result.

    Parameters
    ----------
    target : STUDY.yaml|FILE.nc
        a study, its collected dataset, or a result
    output
        .png, .pdf or .svg [next to the data]
    runs
        directory of the runs, as given to sweep [runs/NAME]
    """
    from bilayer_orchestra.dataset.reading import yaml_data
    from bilayer_orchestra.dataset.schema import open_result, write_atomic
    from bilayer_orchestra.display import output_console
    from bilayer_orchestra.study.spec import Figure

    of_file, data = "", target
    if target.suffix in (".yaml", ".yml"):
        from bilayer_orchestra.study.load import load_study

        study = load_study(target)
        of_file, data = study.text, study.root(runs) / f"{study.name}.nc"
        if not data.exists():
            raise OrchestraError(
                f"{data} is not there; run `orchestra sweep {target}`, or `orchestra collect` on "
                "what is finished"
            )
    dataset = open_result(data)
    stored = str(dataset.attrs.get("study", ""))
    said = yaml_data(of_file or stored)
    if of_file and {**said, "figure": None} != {**yaml_data(stored), "figure": None}:
        raise OrchestraError(
            f"{data} is that of another version of {target}; bring it up to date with "
            f"`orchestra collect {target}`"
        )
    figure = Figure.model_validate(said["figure"]) if said.get("figure") else None
    if figure is None and stored:
        raise OrchestraError(
            f"the study of {target} has no `figure` section; add one to the study file and plot "
            "that"
        )
    path = output or data.with_suffix(".png")
    if not path.parent.is_dir():
        raise OrchestraError(f"there is no directory {path.parent}")
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise OrchestraError(f"{path}: pictures end in .png, .pdf or .svg")
    console = output_console()

    def picture() -> "xr.Dataset | None":
        if figure is None:
            from bilayer_orchestra.plots.common import draw_correlations

            draw_correlations(dataset, path, style)
            return None
        from bilayer_orchestra.plots.study_figure import draw_figure

        return draw_figure(dataset, figure, path, style)

    numbers = draw(picture)
    if numbers is not None:
        table = path.with_name(f"{path.stem}-fits.nc")
        write_atomic(numbers, table)
        console.say(f"fits     {table}")
    console.say(f"picture  {path}")
    open_points = dataset.attrs.get("points", 1) - dataset.attrs.get("finished", 1)
    if open_points:
        console.say(f"{open_points} points of the study are not finished")

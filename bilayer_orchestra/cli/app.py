"""The commands. Each imports what it needs when it is called: ``--help`` must answer at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from bilayer_orchestra.cli.exit_codes import ExitCode
from bilayer_orchestra.cli.paths import PathTyper

app = PathTyper(
    name="orchestra",
    help="One model file, independent many-body engines, one labelled dataset.",
    epilog="Every command takes -v or -vv (say what is done, and how), --quiet (errors and results "
    "only) and --debug (show where in the code something failed).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL.yaml", help="the model file")]
BackendName = Annotated[
    str,
    typer.Option(
        "--backend", "-b", help="an installed engine (`orchestra doctor` lists them), or auto"
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="replace one value, e.g. t_perp=0.3"),
]

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="the study file")]
StudyOutput = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="directory of the runs [runs/NAME of the base model]"),
]
RuntimeName = Annotated[
    str | None, typer.Option(help="local, apptainer or slurm [what the study says, else local]")
]
SiteName = Annotated[
    str | None, typer.Option(help="slurm: site profile, a TOML file or a name [the study's]")
]
Images = Annotated[
    list[str] | None,
    typer.Option("--image", metavar="KIND=FILE", help="image of an engine"),
]
Style = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="a matplotlib style for the picture [the program's own]"),
]
AnyVersion = Annotated[
    bool | None,
    typer.Option(
        "--any-version/--this-version",
        help="take results of another version of an engine, or compute them again [ask]",
        show_default=False,
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="end with exit code 4 if a result is not converged")
]


@app.command()
def run(
    model_file: ModelFile,
    backend: BackendName = "auto",
    runtime: Annotated[
        str, typer.Option(help="where it runs: local, apptainer or slurm")
    ] = "local",
    image: Images = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="directory for result.nc [runs/NAME]")
    ] = None,
    overrides: Overrides = None,
    wait: Annotated[
        bool, typer.Option(help="wait if another process computes this very point")
    ] = True,
    plot: Annotated[bool, typer.Option(help="draw result.png")] = True,
    strict: Strict = False,
    style: Style = None,
    site: SiteName = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="slurm: submit and return; the same command collects")
    ] = False,
    any_version: AnyVersion = None,
) -> None:
    """Solve a model; print a table, leave result.nc and result.png.

    The same request returns its stored result at once; an interrupted one resumes. With slurm it is
    submitted and waited for.
    """
    from bilayer_orchestra.cli.running import Place, Show, run_command

    changes, images = tuple(overrides or ()), image or []
    place = Place(runtime, images, site, output)
    run_command(
        model_file, backend, place, changes, wait, detach, Show(plot, style), strict, any_version
    )


@app.command()
def sweep(
    study_file: StudyFile,
    runtime: RuntimeName = None,
    output: StudyOutput = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="points at the same time (not for slurm)")
    ] = 1,
    image: Images = None,
    site: SiteName = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show what would run or be submitted")
    ] = False,
    strict: Strict = False,
    any_version: AnyVersion = None,
) -> None:
    """Run all points of a study that are not there yet; leave one dataset over all axes.

    A failed point does not stop the others; exit code 1 says that there was one. With slurm the
    points are submitted; `orchestra status` and `orchestra collect` do the rest.
    """
    from bilayer_orchestra.cli.sweeping import sweep_command

    sweep_command(
        *(study_file, runtime, output, jobs), image or [], site, dry_run, strict, any_version
    )


@app.command()
def collect(
    study_file: StudyFile,
    runtime: RuntimeName = None,
    output: StudyOutput = None,
    image: Images = None,
    site: SiteName = None,
    strict: Strict = False,
    any_version: AnyVersion = None,
) -> None:
    """Combine what is finished of a study to one dataset; list what is not. Any time.

    With --strict, exit code 1 says that a point is missing.
    """
    from bilayer_orchestra.cli.sweeping import collect_command

    collect_command(study_file, runtime, output, image or [], site, strict, any_version)


class _CheckCommand(TyperCommand):
    """A wrong command line is "could not run", 3; the usual 2 and 1 would be verdicts here."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the command line."""
        try:
            return super().make_context(*args, **kwargs)
        except Exception as error:  # the parser's own class, which typer may or may not bring
            if getattr(error, "exit_code", None) == ExitCode.USAGE:
                error.exit_code = ExitCode.COULD_NOT_RUN  # type: ignore[attr-defined]
            raise


@app.command(cls=_CheckCommand)
def check(
    targets: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL.yaml | RESULT.nc ...", help="a model file, or stored results"
        ),
    ],
    backends: Annotated[
        str | None,
        typer.Option(help="comma-separated engines [all that are found and can solve it]"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="directory of runs and report [runs/NAME]"),
    ] = None,
    overrides: Overrides = None,
    identities: Annotated[
        bool,
        typer.Option("--identities", help="test each result alone, by exact identities"),
    ] = False,
    distance: Annotated[
        int,
        typer.Option(min=1, help="how far apart sites must agree; less is undecided"),
    ] = 1,
    style: Style = None,
) -> None:
    """Solve a model with several engines and say whether they agree, also as T goes to 0.

    Leaves check.nc and check.html. Given two or more results instead of a model, compares those.
    With --identities a single result, or every engine's, is tested by sum rules and exact limits.

    They agree up to the distance to which every correlation would have shown a deviation of 20 %.

    Exit code: 0 agree (at least up to --distance), 1 disagree, 2 undecided, 3 could not run.
    """
    from bilayer_orchestra.cli.checking import check_command

    changes = tuple(overrides or ())
    check_command(targets, backends, output, changes, identities, distance, style)


@app.command()
def render(
    model_file: ModelFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="directory to write to")],
    backend: BackendName = "auto",
    overrides: Overrides = None,
) -> None:
    """Write what would run, without running it."""
    from bilayer_orchestra.cli.render import render_command

    render_command(model_file, backend, output, tuple(overrides or ()))


@app.command()
def status(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="a run, or a directory of runs")],
) -> None:
    """Say which runs are pending, running, finished or failed, and why."""
    from bilayer_orchestra.cli.status import status_command

    status_command(directory)


@app.command()
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
    from bilayer_orchestra.cli.fitting import fit_command
    from bilayer_orchestra.fits.options import Options

    options = Options(r_min, r_max, edge, power, wave_vector, replicas)
    fit_command(result, what or [], layer, output, boundary, beta, convention, options, plot, style)


@app.command("plot")
def plot_figure(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="STUDY.yaml|FILE.nc", help="a study, its collected dataset, or a result"
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help=".png, .pdf or .svg [next to the data]")
    ] = None,
    runs: Annotated[
        Path | None, typer.Option(help="directory of the runs, as given to sweep [runs/NAME]")
    ] = None,
    style: Style = None,
) -> None:
    """Draw the figure of a study, or the correlations of one result."""
    from bilayer_orchestra.cli.plotting import plot_command

    plot_command(target, output, runs, style)


@app.command()
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
    from bilayer_orchestra.cli.extrapolating import extrapolate_command

    extrapolate_command(result, model, dim, name or [], output)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the model file, for editors."""
    import json

    from bilayer_orchestra.model.kinds import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command()
def doctor() -> None:
    """Say which engines are found and whether they are usable."""
    from bilayer_orchestra.cli.doctor import doctor_command

    doctor_command()


engines = PathTyper(
    help="Build and list the engines that you install yourself.", no_args_is_help=True
)
app.add_typer(engines, name="engines")


@engines.command("build")
def engines_build(
    engine: Annotated[str, typer.Argument(help="name of the engine")],
    source: Annotated[
        Path | None, typer.Option(help="the engine's source tree; it is not modified")
    ] = None,
    native: Annotated[bool, typer.Option("--native", help="tune for this processor")] = False,
    mpi: Annotated[bool, typer.Option("--mpi", help="several processes per chain")] = False,
    hdf5: Annotated[bool, typer.Option("--hdf5", help="HDF5 output (ALF_HDF5_DIR)")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="ignore the cached build")] = False,
) -> None:
    """Compile an engine from your source tree; repeated builds come from the cache."""
    from bilayer_orchestra.cli.engines import build_command

    flags = {"native": native, "mpi": mpi, "hdf5": hdf5}
    build_command(engine, source, tuple(name for name, on in flags.items() if on), rebuild)


@engines.command("install")
def engines_install(
    engine: Annotated[str, typer.Argument(help="name of the engine")],
) -> None:
    """Install what an engine needs, such as Julia and its packages."""
    from bilayer_orchestra.cli.engines import install_command

    install_command(engine)


@engines.command("list")
def engines_list() -> None:
    """Show the engines that are set up, and which one is in use."""
    from bilayer_orchestra.cli.engines import list_command

    list_command()


containers = PathTyper(
    help="Build and verify Apptainer images of the engines.", no_args_is_help=True
)
app.add_typer(containers, name="containers")


@containers.command("build")
def containers_build(
    engine: Annotated[
        str, typer.Argument(help="kind of image; `orchestra containers list` shows them")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="the image file [ENGINE.sif]")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="base image: file or docker://NAME [the configured one, Debian]"),
    ] = None,
    source: Annotated[
        Path | None, typer.Option(help="local source tree [the official release is fetched]")
    ] = None,
    version: Annotated[str | None, typer.Option(help="the release to fetch")] = None,
    sha256: Annotated[str | None, typer.Option(help="its checksum, verified if given")] = None,
    mirror: Annotated[
        str | None, typer.Option(help="where releases are fetched from [their official place]")
    ] = None,
) -> None:
    """Build an image from our definition, test it, and note it in the configuration file."""
    from bilayer_orchestra.cli.containers import build_command
    from bilayer_orchestra.images.build import Sources

    build_command(engine, output, Sources(base, source, version, sha256, mirror))


@containers.command("verify")
def containers_verify(
    engine: Annotated[
        str, typer.Argument(help="kind of image; `orchestra containers list` shows them")
    ],
    image: Annotated[Path | None, typer.Argument(help="the image file [the configured]")] = None,
) -> None:
    """Check an image, such as one that was built elsewhere: whole, of this version, working."""
    from bilayer_orchestra.cli.containers import verify_command

    verify_command(engine, image)


@containers.command("list")
def containers_list() -> None:
    """Show the images that are set up."""
    from bilayer_orchestra.cli.containers import list_command

    list_command()


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
) -> None:
    """One model file, independent many-body engines, one labelled dataset."""
    if version:
        from bilayer_orchestra import __version__

        typer.echo(f"orchestra {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(ExitCode.USAGE)

"""``orchestra run``."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from rich.console import Console

from bilayer_orchestra.backends.registry import choose, get_backend
from bilayer_orchestra.cli.console import output_console
from bilayer_orchestra.cli.progress import progress
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.files import other_owner, replacing
from bilayer_orchestra.model.load import load_model
from bilayer_orchestra.pipeline import Outcome, run_point
from bilayer_orchestra.runtimes.images import image_table
from bilayer_orchestra.runtimes.registry import adapter, get_runtime


def run_command(
    model_file: Path,
    backend_name: str,
    runtime_name: str,
    output: Path | None,
    overrides: tuple[str, ...],
    wait: bool,
    plot: bool,
    images: list[str],
) -> None:
    """Solve one model and show the result."""
    console = output_console()
    model = load_model(model_file, overrides)
    backend = get_backend(choose(model.terms()) if backend_name == "auto" else backend_name)
    # a search is many jobs
    searches = getattr(model, "filling", None) is not None
    runtime = get_runtime(runtime_name, image_table(images), many=searches)
    backend = adapter(runtime)(backend)
    root = output if output is not None else Path("runs") / model.name
    with contextlib.closing(runtime), progress(console) as show:
        show(f"{model.name} with {backend.version()} ({backend.name})")
        outcome = run_point(
            model, backend, runtime, root, show, wait, _load_plotting if plot else lambda: None
        )
    picture = _draw(outcome, console) if plot and not outcome.run.foreign else None
    published = _publish(outcome.run.result, root / "result.nc")
    shown = _publish(picture, root / "result.png") if picture else None
    from bilayer_orchestra.cli.table import result_table

    console.print(result_table(outcome.dataset, outcome.reused))
    for label, path in (("dataset", published), ("picture", shown), ("run", outcome.run.path)):
        if path is not None:
            console.print(f"{label:8s} {path}", markup=False, highlight=False, soft_wrap=True)


def _load_plotting() -> None:
    with contextlib.suppress(ImportError):  # said when the picture is due
        import bilayer_orchestra.plotting  # noqa: F401


def _draw(outcome: Outcome, console: Console) -> Path | None:
    """Draw the picture once per result; a missing plotting library is no failure."""
    picture = outcome.run.path / "result.png"
    if picture.exists():
        return picture
    try:
        from bilayer_orchestra.plotting import draw_correlations, drawable
    except ImportError:
        console.print(
            "no picture: pip install 'bilayer-orchestra[plot]' for matplotlib", markup=False
        )
        return None
    if not drawable(outcome.dataset):
        return None
    draw_correlations(outcome.dataset, picture)
    return picture


def _publish(source: Path, target: Path) -> Path:
    """Make ``target`` a copy of ``source`` by rename: the old one is there until the new one is.

    What belongs to another user stays: then ``source`` is what is shown.
    """
    if other_owner(source) or other_owner(target):
        return source
    try:
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
    except OrchestraError as error:
        raise OrchestraError(f"{error}; the result itself is in {source}") from error
    return target

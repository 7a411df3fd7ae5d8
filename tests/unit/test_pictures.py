"""Pictures: none decides over a result, all look alike everywhere, and none of them misleads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.support.paths import DOCS_DATA

pytest.importorskip("matplotlib")

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from bilayer_orchestra.cli.results import plot
from bilayer_orchestra.dataset.schema import open_result, write_atomic
from bilayer_orchestra.fits.datasets import fit
from bilayer_orchestra.plots import common as plotting
from bilayer_orchestra.plots import fitted
from bilayer_orchestra.plots import study_figure as drawing
from bilayer_orchestra.plots.common import Curve, curve, draw, log_ordinate
from bilayer_orchestra.study.spec import Figure
from tests.support.fits import dataset, open_green, strings
from tests.support.models import make_model


def orchestra(*arguments, cwd, **environment):
    """Run the program as someone whose environment holds these variables; None: unset."""
    words = [sys.executable, "-m", "bilayer_orchestra.cli.main", *map(str, arguments)]
    variables = {k: v for k, v in (os.environ | environment).items() if v is not None}
    return subprocess.run(
        words, cwd=cwd, env=variables, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """A directory with a model of eight rungs and its result, drawn undisturbed."""
    folder = tmp_path_factory.mktemp("pictures") / "made"
    folder.mkdir()
    model = make_model({"n_up": 2, "n_down": 2}, 8, t_perp=0.8)
    (folder / "model.yaml").write_text(model.to_yaml())
    done = orchestra("run", "model.yaml", cwd=folder, MPLBACKEND=None)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def here(computed, tmp_path):
    """A copy of it."""
    return shutil.copytree(computed, tmp_path / "here")


def without_matplotlib(folder, error):
    """A directory for PYTHONPATH in which matplotlib cannot be imported."""
    (folder / "matplotlib").mkdir(parents=True)
    (folder / "matplotlib" / "__init__.py").write_text(f"raise {error}\n")
    return str(folder)


MISSING = "ModuleNotFoundError('No module named matplotlib', name='matplotlib')"


@pytest.mark.cases(1)
@pytest.mark.parametrize("error", [MISSING, "RuntimeError('built for another numpy')"])
def test_results_do_not_need_matplotlib(here, error):
    path = without_matplotlib(here / "broken", error)
    (old,) = (here / "runs/test").glob("result.png")
    asked = ("run", "model.yaml", "--set", "t_perp=0.7")
    done = orchestra(*asked, cwd=here, PYTHONPATH=path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no picture: " in done.stdout
    with xr.open_dataset(here / "runs/test/result.nc") as result:
        assert "t_perp: 0.7" in result.attrs["model"]
    assert not old.exists()
    fitted = orchestra("fit", "runs/test/result.nc", "--what", "pair", cwd=here, PYTHONPATH=path)
    assert (fitted.returncode, fitted.stderr) == (0, "")
    assert "no picture: " in fitted.stdout
    assert (here / "runs/test/fit.nc").exists()
    files = [str(one) for one in (here / "runs/test").glob("*/result.nc")]
    checked = orchestra("check", files[0], files[0], cwd=here, PYTHONPATH=path)
    assert checked.returncode == 0, checked.stderr
    page = (here / "check.html").read_text()
    assert "no picture: " in page
    assert "<img" not in page
    plotted = orchestra("plot", "runs/test/result.nc", cwd=here, PYTHONPATH=path)
    assert plotted.returncode == 1
    assert re.fullmatch(r"orchestra: [^\n]*(matplotlib|numpy)[^\n]*\n", plotted.stderr)


USERS = "text.usetex: True\nsavefig.dpi: 30\nlines.linewidth: 9\nfont.family: NoSuchFont\n"


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    "environment",
    [
        {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        {"MPLBACKEND": "module://no_such_module.backend"},
        {"MPLBACKEND": "NoSuchBackend"},
        {"MPLBACKEND": "TkAgg", "DISPLAY": None},
        {"MATPLOTLIBRC": "their"},
        {},  # a file `matplotlibrc` in the working directory
    ],
)
def test_the_users_configuration_does_not_change_a_picture(here, environment):
    (here / "their").mkdir()
    for place in ("their", "."):
        if environment.get("MATPLOTLIBRC", ".") == place:
            (here / place / "matplotlibrc").write_text(USERS)
    first = (here / "runs/test/result.png").read_bytes()
    done = orchestra("plot", "runs/test/result.nc", cwd=here, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert (here / "runs/test/result.png").read_bytes() == first


@pytest.mark.slow
def test_a_style_is_taken_on_purpose(here):
    (here / "wide.mplstyle").write_text("lines.linewidth: 9\nsavefig.dpi: 50\nbackend: TkAgg\n")
    (here / "wrong.mplstyle").write_text("lines.linewidth: wide\n")
    first = (here / "runs/test/result.png").read_bytes()
    for command in (
        ("run", "model.yaml"),
        ("plot", "runs/test/result.nc"),
        ("fit", "runs/test/result.nc", "--what", "pair"),
    ):
        done = orchestra(*command, "--style", "wide.mplstyle", cwd=here)
        assert done.returncode == 0, done.stderr
    (own,) = (here / "runs/test").glob("*/result.png")
    assert own.read_bytes() == first  # the run's own picture keeps the program's style
    assert 0 < len((here / "runs/test/result.png").read_bytes()) < len(first)
    (here / "binary.mplstyle").write_bytes(b"\xff\xfe")
    for name in ("wrong.mplstyle", "none.mplstyle", "binary.mplstyle", "model.yaml"):
        done = orchestra("run", "model.yaml", "--set", "t_perp=0.1", "--style", name, cwd=here)
        assert done.returncode == 1
        assert re.fullmatch(rf"orchestra: {name} is no matplotlib style: [^\n]*\n", done.stderr)
        assert "Errno" not in done.stderr
    assert len(list((here / "runs/test").glob("test-*"))) == 1  # refused before anything ran


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, instead of files."""
    kept: list[Picture] = []
    monkeypatch.setattr(plotting, "save", lambda figure, path: kept.append(figure))
    return kept


def texts(picture):
    """All words of a picture as one text."""
    picture.draw_without_rendering()
    return " | ".join(
        one.get_text() for one in picture.findobj(match=lambda a: hasattr(a, "get_text"))
    )


def panels(picture):
    return [axis for axis in picture.axes if isinstance(axis, Axes)]


def named_ticks(axis, which="y"):
    """The labels of the ticks that lie within the axis."""
    axis.figure.draw_without_rendering()
    low, high = sorted(getattr(axis, f"get_{which}lim")())
    ticks = getattr(axis, f"{which}axis").get_major_ticks()
    return [
        t.label1.get_text() for t in ticks if low <= t.get_loc() <= high and t.label1.get_text()
    ]


STUDIES = {
    "fig2": Figure(kind="decay", along="t_perp", panels="densities"),
    "fig3": Figure(kind="comparison", along="densities"),
    "fig4": Figure(kind="exponents", along="U_P", panels="densities"),
    "fig6": Figure(kind="temperature", along="temperature", reference="T = 0"),
}


@pytest.mark.cases(2)
@pytest.mark.parametrize("name", ["fig6", "fig4", "fig3", "fig2"])
def test_axes_have_names_and_ticks_and_the_title_the_true_parameters(drawn, name):
    data = open_result(DOCS_DATA / f"{name}.nc")
    drawing.draw_figure(data, STUDIES[name], Path("x.png"))
    (picture,) = drawn
    for axis in panels(picture):
        assert axis.get_ylabel()
        assert axis.get_xlabel()
        assert len(named_ticks(axis)) >= 2, axis.get_title()
        assert len(named_ticks(axis, "x")) >= 2
        low, high = axis.get_ylim()
        if axis.get_yscale() == "log":
            assert high / low * 1.001 >= 10
            assert low > 1e-7  # fig6 reached 1e-10, with the bar of a zero
    head = picture.get_suptitle()
    assert "length=12" in head or "length=8" in head
    assert "U_P" not in head.partition("\n")[2]
    along = STUDIES[name].along
    assert f"{along}=" not in head  # what the axes change is no common parameter
    if name in ("fig2", "fig3", "fig4"):
        assert "n_up" not in head  # 6 or 12: those of the first point only
    assert picture.get_supxlabel()


@pytest.mark.parametrize(("name", "groups"), [("fig2", 2), ("fig3", 1), ("fig6", 2)])
def test_panels_of_one_quantity_have_one_range(drawn, name, groups):
    drawing.draw_figure(open_result(DOCS_DATA / f"{name}.nc"), STUDIES[name], Path("x.png"))
    ranges: dict[str, set] = {}
    for axis in panels(drawn[0]):
        ranges.setdefault(axis.get_ylabel(), set()).add(axis.get_ylim())
    assert len(ranges) == groups
    assert all(len(one) == 1 for one in ranges.values())


def test_pairs_of_the_ends_do_not_bend_the_curve(drawn):
    """Free hard-core bosons: r^-1/2, within a few per cent away from the ends."""
    point = dataset(strings(open_green(48, 24)), "open")
    point.attrs |= {"converged": 1, "engine": "none"}
    plotting.draw_correlations(point, Path("x.png"))
    (axis,) = panels(drawn[0])
    line = max(axis.get_lines(), key=lambda one: len(one.get_xdata()))
    r, values = np.array(line.get_xdata(), float), np.array(line.get_ydata(), float)
    assert r[-1] == 31
    assert -0.7 < np.polyfit(np.log(r), np.log(values), 1)[0] < -0.5
    everything = curve(point, "pair", "P", ends=True)
    last = np.log(everything.r[-8:]), np.log(everything.mean[-8:])
    assert np.polyfit(*last, 1)[0] < -1.5  # what the picture showed
    assert "without length // 6" in drawn[0].get_supxlabel()


def test_a_zero_within_its_error_does_not_set_the_axis():
    axis = Picture().subplots()
    r = np.arange(1, 6)
    mean = np.array([1e-1, -1e-2, 1e-3, 1e-7, -3e-16])
    noisy = Curve(r, mean, np.full(5, 1e-4), np.zeros(5))
    draw(axis, noisy, "black", "P")
    log_ordinate([axis])
    assert axis.get_ylim()[0] > 3e-4
    lines = [line for line in axis.get_lines() if line.get_label() == "P"]
    assert np.isfinite(lines[0].get_ydata()).tolist() == [True, True, True, False, False]
    exact = Curve(r, mean, np.zeros(5), np.zeros(5))
    other = Picture().subplots()
    draw(other, exact, "black", "P")
    log_ordinate([other])
    assert 1e-8 < other.get_ylim()[0] < 1e-7  # small, and known; rounding is not
    empty = Picture().subplots()
    draw(empty, Curve(r, 0 * mean, 0 * mean, 0 * mean), "black", "P")
    log_ordinate([empty])
    assert "P: zero within errors" in [line.get_label() for line in empty.get_lines()]
    for wrong in (np.inf, -np.inf, np.nan):  # no zeros, and nothing that spoils the axis
        broken = Picture().subplots()
        draw(broken, Curve(r, np.full(5, wrong), 0 * mean, 0 * mean), "black", "P")
        log_ordinate([broken])
        assert "P: no values" in [line.get_label() for line in broken.get_lines()]
    assert len(named_ticks(empty)) >= 2


@pytest.mark.cases(3)
@pytest.mark.parametrize("length", [2, 3, 7])
@pytest.mark.parametrize("state", [{"n_up": 2, "n_down": 2}, {"n_up": 2, "n_down": 0}])
def test_small_chains_have_whole_distances_and_named_ticks(drawn, solve, length, state):
    result = solve(make_model(state, length), "exact")
    plotting.draw_correlations(result, Path("x.png"))
    (picture,) = drawn
    for axis in panels(picture):
        assert all(text.isdigit() for text in named_ticks(axis, "x"))
        assert len(named_ticks(axis)) >= 2
        assert not any("." in text.partition("^")[2] for text in named_ticks(axis))
    assert f"length={length}, boundary=open" in texts(picture)
    assert f"n_down={state['n_down']}" in texts(picture)


def test_noise_has_error_bars(drawn, solve):
    result = solve(make_model({"n_up": 1, "n_down": 1}, 4), "exact")
    noisy = result.assign(pair_stderr=0 * result["pair"] + 0.01 * np.abs(result["pair"]).max())
    plotting.draw_correlations(noisy, Path("x.png"))
    left, right = panels(drawn[0])
    heights = [
        np.ptp(path.vertices[:, 1]) for bars in left.collections for path in bars.get_paths()
    ]
    assert max(heights) > 0
    assert right.get_ylabel().startswith("density")


def test_the_picture_of_a_fit_says_what_it_shows(drawn):
    point = dataset(strings(open_green(24, 12)), "open")
    both = point.reindex(layer=["P", "M"], layer_=["P", "M"])
    both["pair"].loc[{"layer": "M", "layer_": "M"}] = 0.2  # does not decay
    found = fit(both)
    fitted.draw_fits(found, Path("x.png"))
    (picture,) = drawn
    words = texts(picture)
    eta, error = float(found.pair_eta[0]), float(found.pair_eta_systematic[0])
    (value, spread) = re.search(r"P: \$\\eta\$ = ([\d.]+) \$\\pm\$ ([\d.]+)", words).groups()
    assert float(value) == pytest.approx(eta, abs=error / 2)
    assert float(spread) == pytest.approx(error, rel=0.06)
    assert len(value) == len(spread)  # as many digits as the error has
    assert "M: no fit" in words
    assert "boundary=open" in words
    for word in ("window", "weight", "band", "open: negative"):
        assert word in picture.get_supxlabel()
    for axis in panels(picture):
        assert axis.get_ylabel()
        assert all(text.isdigit() for text in named_ticks(axis, "x"))


def test_what_an_axis_changes_is_drawn_as_each_point_is(drawn, solve, tmp_path):
    """Two boundaries on one axis: distances of a ring are the shorter way around."""
    from bilayer_orchestra.running.point import Runner
    from bilayer_orchestra.study.collect import collect
    from bilayer_orchestra.study.load import load_study
    from bilayer_orchestra.study.run import run_points
    from bilayer_orchestra.study.tasks import make_tasks
    from tests.support.figures import ENSEMBLES, Quiet

    text = ENSEMBLES[: ENSEMBLES.index("axes:")] + (
        "axes:\n  boundary: [open, periodic]\n  chain: {path: length, values: [3, 4]}\n"
        "backends: [exact]\nfigure: {kind: decay, along: boundary, panels: chain}\n"
    )
    (tmp_path / "study.yaml").write_text(text)
    study = load_study(tmp_path / "study.yaml")
    runner = Runner(tmp_path / "runs")
    tasks = make_tasks(study, runner)
    run_points(tasks, runner, 1, Quiet())
    data = collect(study, tasks).dataset
    path = tmp_path / "small.nc"
    write_atomic(data, path)
    plot(path, tmp_path / "x.png", None)
    (picture,) = drawn
    reach = {
        (axis.get_title(), line.get_label()): int(line.get_xdata()[-1])
        for axis in panels(picture)
        for line in axis.get_lines()
        if line.get_label().startswith("boundary")
    }
    assert reach[("layer P, chain = 4", "boundary = open")] == 3
    assert reach[("layer P, chain = 4", "boundary = periodic")] == 2
    assert reach[("layer P, chain = 3", "boundary = periodic")] == 1


def with_noise(result, seed):
    """The result as a Monte Carlo run of 32 blocks would state it."""
    rng, noisy = np.random.default_rng(seed), result.copy(deep=True)
    for name in ("pair", "density_density"):
        one = result[name]
        blocks = rng.normal(0, 0.02 * np.abs(one).max() * np.sqrt(32), (32, *one.shape))
        deviation = (blocks - blocks.mean(axis=0)) / np.sqrt(32 * 31)
        noisy[name] = one + blocks.mean(axis=0)
        noisy[name].attrs = one.attrs | {"covariance_degrees_of_freedom": 31.0}
        noisy[f"{name}_deviation"] = (("block", *one.dims), deviation)
        noisy[f"{name}_stderr"] = (one.dims, np.sqrt((deviation**2).sum(axis=0)))
        noisy[f"{name}_bias"] = 0 * one
    return noisy.assign_attrs(backend=f"noisy {seed}")


def test_figures_of_a_check_have_names_and_show_every_result(solve, monkeypatch):
    from bilayer_orchestra.checking.plan import compare_files
    from bilayer_orchestra.plots import checked as figures

    result = solve(make_model({"n_up": 2, "n_down": 2}, 3), "exact")
    kept = []
    monkeypatch.setattr(figures, "_svg", lambda figure: kept.append(figure) or "")
    results = {"exact": result, "same": result, **{str(k): with_noise(result, k) for k in (1, 2)}}
    captions = [one.caption for one in figures.illustrations(compare_files(results, "three"))]
    overlay, pulls = kept
    assert "ends of an open chain included" in captions[0]
    assert "beyond five errors" in captions[1]
    for axis in [*panels(overlay), *panels(pulls)]:
        assert axis.get_ylabel()
        assert len(named_ticks(axis)) >= 2
    for axis in panels(overlay):
        assert named_ticks(axis, "x") == ["1", "2"]
    # two histograms are equal, since two results are: both are seen
    widths = [patch.get_linewidth() for patch in panels(pulls)[0].patches]
    assert len(set(widths)) == len(widths) > 2

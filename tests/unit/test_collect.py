"""What the dataset of a study holds: labels, the study as it was read, damaged results."""

from __future__ import annotations

import fcntl
import re
import shutil

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from bilayer_orchestra.cli.app import app
from bilayer_orchestra.cli.results import plot
from bilayer_orchestra.dataset.schema import DIAGNOSTICS, open_result
from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import DamagedFileError, OrchestraError, SpecError
from bilayer_orchestra.fits.datasets import conditions
from bilayer_orchestra.observables import OBSERVABLES
from bilayer_orchestra.running.directory import RunDirectory
from bilayer_orchestra.running.point import stored
from bilayer_orchestra.study import run as study_run
from bilayer_orchestra.study.load import load_study

BASE = """\
version: 1
name: base
model: bilayer
length: 2
layers:
  P: {hopping: 0.0, interaction: -4.0}
  M: {hopping: 1.0}
t_perp: 0.8
state: {n_up: 1, n_down: 1}
"""
HEAD = "version: 1\nname: scan\nmodel: base.yaml\nbackends: [exact]\n"
FOUR = HEAD + "axes: {t_perp: [0.2, 0.4, 0.6, 0.8]}\n"


@pytest.fixture
def study(tmp_path):
    """Return what writes a study file with these lines added."""
    (tmp_path / "base.yaml").write_text(BASE)

    def write(text):
        path = tmp_path / "study.yaml"
        path.write_text(text if text.startswith("version") else HEAD + text)
        return path

    return write


def orchestra(*arguments, code=0):
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    if isinstance(done.exception, OrchestraError):
        raise done.exception
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def problem(path):
    with pytest.raises(SpecError) as caught:
        load_study(path)
    (text,) = caught.value.problems
    return text


# ---- labels ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        ("axes: {numerics.block2.seed: [1, 2], t_perp: [0.3, 0.5]}", "seed"),
        ("axes: {numerics.alf.chains: [1, 2]}", "chains"),
        ("axes: {numerics.block2.energy_variance: [0.1, 0.2]}", "energy_variance"),
        ("axes: {numerics.block2.discarded_weight: [1.0e-6, 1.0e-8]}", "discarded_weight"),
        ("axes: {numerics.alf.pair_susceptibility: {path: t_perp, values: [1]}}", None),
        ("axes: {converged: {path: t_perp, values: [0.3]}}", "converged"),
        ("axes: {engine: {path: t_perp, values: [0.3]}}", "engine"),
        ("axes: {model: {path: t_perp, values: [0.3]}}", "model"),
        ("axes: {history: {path: t_perp, values: [0.3]}}", "history"),
        ("axes: {finished: {path: t_perp, values: [0.3]}}", "finished"),
        ("axes: {gap: {path: t_perp, values: [0.3]}}", "gap"),
        ("axes: {pair_stderr: {path: t_perp, values: [0.3]}}", "pair_stderr"),
        ("axes: {energy_bias: {path: t_perp, values: [0.3]}}", "energy_bias"),
        ("axes: {green_xi: {path: t_perp, values: [0.3]}}", "green_xi"),
        ("axes: {pair_status: {path: t_perp, values: [0.3]}}", "pair_status"),
        ("axes: {energy_chi2_per_dof: {path: t_perp, values: [0.3]}}", "energy_chi2_per_dof"),
        ("axes: {cut: {path: t_perp, values: [0.3]}}", "cut"),
        ("axes: {window: {path: t_perp, values: [0.3]}}", "window"),
        ("axes: {r: {path: t_perp, values: [0.3]}}", "r"),
        ("zip: {bond_dimension: {numerics.block2.max_bond_dimension: [50]}}", "bond_dimension"),
        ("zip: {request_hash: {t_perp: [0.3, 0.3], length: [2, 4]}}", "request_hash"),
    ],
)
def test_a_label_that_means_something_else_is_refused(study, lines, name):
    text = problem(study(lines))
    assert text.startswith("line 5: ")
    if name is not None:
        assert f"would be called `{name}`, which means something else in the dataset" in text


def test_a_label_of_a_search_is_refused_where_there_is_one(study):
    axes = "axes: {layers.M.chemical_potential: [0.1, 0.2]}\n"
    assert load_study(study(axes)).axes[0].label == "chemical_potential"
    searching = axes + "zip: {both: {filling.P: [0.5, 0.25], filling.M: [0.5, 0.75]}}\n"
    assert "would be called `chemical_potential`" in problem(study(searching))


def test_further_columns_of_a_zip_get_longer_names_by_themselves(study):
    path = study("zip: {both: {t_perp: [0.3, 0.5], numerics.exact.seed: [5, 6]}}")
    (axis,) = load_study(path).axes
    assert list(axis.coordinates()) == ["both", "exact_seed"]
    orchestra("sweep", path, "-o", path.parent / "runs")
    dataset = open_result(path.parent / "runs" / "scan.nc")
    assert dataset["exact_seed"].values.tolist() == dataset["seed"].values.tolist() == [5, 6]
    assert dataset["seed"].dims == dataset["exact_seed"].dims == ("both",)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Names of all variables, dimensions and attributes of sweeps, fits and limits."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "base.yaml").write_text(BASE)
    text = HEAD.replace("[exact]", "[exact, block2]") + "axes: {length: [2]}\n"
    (folder / "study.yaml").write_text(text)
    (folder / "tuned.yaml").write_text(
        "version: 1\nname: tuned\nbackends: [exact]\naxes: {t_perp: [0.8]}\nmodel:\n  "
        + re.sub("state.*", "filling: {P: 0.5, M: 0.5}", BASE).replace("\n", "\n  ")
    )
    names = set()
    for name in ("scan", "tuned"):
        orchestra("sweep", folder / f"{'study' if name == 'scan' else name}.yaml", "-o", folder)
        dataset = open_result(folder / f"{name}.nc")
        names |= {str(one) for one in (*dataset.data_vars, *dataset.dims, *dataset.attrs)}
        names -= {"length", "t_perp"}
    return names


def test_no_name_of_a_real_dataset_may_be_a_label(real, study):
    pytest.importorskip("block2", reason="block2 is missing")
    names = real | {*OBSERVABLES, *DIAGNOSTICS, *(f"{one}_stderr" for one in OBSERVABLES)}
    assert {"seed", "converged", "chemical_potential", "second_start_deviation", "backend"} <= names
    tuned = study("").parent / "base.yaml"
    tuned.write_text(re.sub("state.*", "filling: {P: 0.5, M: 0.5}", BASE))
    said = {}
    for name in sorted(names):
        path = study(f"axes: {{{name}: {{path: t_perp, values: [0.3, 0.5]}}}}\n")
        try:
            load_study(path)
            said[name] = "is allowed"
        except SpecError as error:
            said[name] = str(error)
    assert [name for name in said if "means something else" not in said[name]] == []


@pytest.mark.parametrize(
    "lines",
    [
        "zip: {length: {t_perp: [0.1, 0.2], length: [2, 4]}}",
        "zip: {t_perp: {t_perp: [0.1, 0.1], length: [2, 4]}}",
        "zip: {length: {t_perp: [0.1, 0.1], length: [2, 4]}}",
    ],
)
def test_a_label_is_not_that_of_other_values_beside_it(study, lines):
    assert "as one of its values is; take another label" in problem(study(lines))
    allowed = "zip: {length: {length: [2, 4], t_perp: [0.1, 0.2]}}"
    (axis,) = load_study(study(allowed)).axes
    assert axis.coordinates()["length"] == ((2, 4), "length")


# ---- zipped values -----------------------------------------------------------------------------


def test_zipped_points_have_coordinates_and_names_of_their_own(study):
    path = study("zip: {pt: {t_perp: [0.3, 0.3, 0.5], layers.P.interaction: [-2, -4, -4]}}")
    points = [point.name for point in load_study(path).points]
    assert points == ["pt=0.3 -2", "pt=0.3 -4", "pt=0.5 -4"]
    orchestra("sweep", path, "-o", path.parent / "runs")
    dataset = open_result(path.parent / "runs" / "scan.nc")
    assert dataset["pt"].values.tolist() == ["0.3 -2", "0.3 -4", "0.5 -4"]
    assert dataset["t_perp"].values.tolist() == [0.3, 0.3, 0.5]
    assert dataset["interaction"].values.tolist() == [-2, -4, -4]
    assert dataset["t_perp"].attrs["model_path"] == "t_perp"
    assert dataset["energy"].sel(pt="0.3 -4").ndim == 0
    # values that differ are the coordinate themselves, as long as they do
    path = study("zip: {pt: {t_perp: [0.3, 0.5], layers.P.interaction: [-4, -4]}}")
    assert load_study(path).axes[0].labels == (0.3, 0.5)


@pytest.mark.parametrize(
    "lines",
    [
        "zip: {pt: {t_perp: [0.3, 0.3], length: [4, 4]}}",
        "zip: {pt: {t_perp: [0.3, 0.5, 0.3], length: [4, 6, 4]}}",
        "zip: {pt: {t_perp: [1, 1.0], length: [4, 4]}}",
        "axes: {t_perp: [1, 1.0]}",
        "axes: {s: {path: state, values: {a: {n_up: 1, n_down: 2}, b: {n_down: 2, n_up: 1}}}}",
    ],
)
def test_the_same_point_twice_is_refused(study, lines):
    assert "twice" in problem(study(lines))


def test_values_that_differ_in_the_last_digit_have_different_names(study):
    close = [0.3, 0.1 + 0.2]
    names = [p.name for p in load_study(study(f"axes: {{t_perp: {close}}}")).points]
    assert names == ["t_perp=0.3", "t_perp=0.30000000000000004"]


# ---- what was read is what is stored ------------------------------------------------------------


@pytest.mark.parametrize("change", ["edited", "removed"])
def test_a_study_that_changes_meanwhile_is_stored_as_it_was_read(study, monkeypatch, change):
    path = study(FOUR)
    original = study_run.make_tasks

    def edit(*arguments):
        tasks = original(*arguments)
        path.write_text(FOUR.replace("0.2", "0.9")) if change == "edited" else path.unlink()
        return tasks

    monkeypatch.setattr(study_run, "make_tasks", edit)
    orchestra("sweep", path, "-o", path.parent / "runs")
    dataset = open_result(path.parent / "runs" / "scan.nc")
    assert dataset.attrs["study"] == FOUR
    assert dataset["t_perp"].values.tolist() == [0.2, 0.4, 0.6, 0.8]


# ---- damaged results ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept")
    (folder / "base.yaml").write_text(BASE)
    (folder / "study.yaml").write_text(FOUR)
    orchestra("sweep", folder / "study.yaml", "-o", folder / "runs")
    return folder


def cut(data):
    return data[: len(data) // 2]


def hole(data):
    middle = len(data) // 2
    return data[: middle - 4000] + bytes(8000) + data[middle + 4000 :]


DAMAGES = {
    "cut": cut,
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "last byte": lambda data: data[:-1],
    "hole": hole,
    "text": lambda data: b"not a dataset\n" * 500,
    "zeros": lambda data: bytes(len(data)),
}


@pytest.fixture
def damaged(swept, tmp_path, request):
    """Return (folder, run) with one damaged result of four; the fourth has a known energy."""
    shutil.copytree(swept, tmp_path / "copy")
    folder = tmp_path / "copy"
    point = load_study(folder / "study.yaml").points[3]
    run = RunDirectory.for_request(folder / "runs", point.model, get_engine("exact"))
    data = run.result.read_bytes()
    run.result.write_bytes(DAMAGES[request.param](data))
    return folder, run


# a hole is not seen before the file is read: it takes a second `collect`
@pytest.mark.parametrize("damaged", DAMAGES, indirect=True)
def test_a_damaged_result_is_named_set_aside_and_computed_again(damaged):
    folder, run = damaged
    arguments = (folder / "study.yaml", "-o", folder / "runs")
    kept = run.result.read_bytes()
    output = orchestra("collect", *arguments)
    assert "3 of 4 points finished" in output
    assert re.search(r"failed +t_perp=0.8 +.*result.nc is damaged; set aside as", output)
    energy = open_result(folder / "runs" / "scan.nc")["energy"]
    assert np.isfinite(energy[:3]).all()
    assert np.isnan(energy[3])
    assert (run.path / "result.nc.damaged").read_bytes() == kept
    state = orchestra("status", run.path)
    assert "1 failed" in state
    assert "computes it again" in state
    output = orchestra("sweep", *arguments)
    assert "4 of 4 points finished" in output
    again = open_result(folder / "runs" / "scan.nc")["energy"]
    # two rungs, U = -4, t_perp = 0.8, 1 up 1 down
    assert abs(float(again[3]) + 4.354554895800679) < 1e-10
    np.testing.assert_array_equal(again[:3], energy[:3])


@pytest.mark.parametrize("damaged", DAMAGES, indirect=True)
@pytest.mark.parametrize("command", ["sweep", "run"])
def test_what_computes_sets_a_damaged_result_aside_by_itself(damaged, command):
    folder, run = damaged
    if command == "sweep":
        output = orchestra("sweep", folder / "study.yaml", "-o", folder / "runs")
        assert "t_perp=0.8: " in output
    else:
        output = orchestra(
            "run", folder / "base.yaml", "-b", "exact", "-o", folder / "runs", "--no-plot"
        )
        assert "-4.3545548958" in output
    assert f"{run.path.name}/result.nc is damaged; set aside as result.nc.damaged" in output
    assert float(open_result(run.result)["energy"]) == pytest.approx(-4.354554895800679, abs=1e-10)
    assert run.status()[0] == "finished"


@pytest.mark.parametrize("damaged", ["cut"], indirect=True)
def test_a_run_whose_result_is_gone_is_not_called_finished(damaged):
    _, run = damaged
    run.result.unlink()
    assert run.status() == ("failed", "its result.nc is gone; the same command computes it again")


@pytest.mark.parametrize("damaged", ["cut"], indirect=True)
@pytest.mark.parametrize("left", DAMAGES)
def test_damaged_output_of_an_engine_does_not_stop_a_collection(damaged, left):
    folder, run = damaged
    run.result.unlink()
    output = run.job / "output.npz"
    output.write_bytes(DAMAGES[left](output.read_bytes()))
    arguments = (folder / "study.yaml", "-o", folder / "runs")
    said = orchestra("collect", *arguments)
    assert "3 of 4 points finished" in said
    assert re.search(r"failed +t_perp=0.8 +.*output.npz is missing or damaged", said)
    assert "4 of 4 points finished" in orchestra("sweep", *arguments)
    assert float(open_result(run.result)["energy"]) == pytest.approx(-4.354554895800679, abs=1e-10)


@pytest.mark.parametrize("damaged", ["cut"], indirect=True)
def test_a_result_that_another_process_sets_aside_meanwhile_is_none(damaged, monkeypatch):
    _, run = damaged

    def load(path, **options):
        run.set_aside()
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("bilayer_orchestra.dataset.schema.xr.load_dataset", load)
    assert stored(run) is None


@pytest.mark.parametrize("damaged", ["cut"], indirect=True)
def test_what_somebody_holds_is_named_and_left_to_him(damaged):
    folder, run = damaged
    with run.locked(wait=False):
        output = orchestra("collect", folder / "study.yaml", "-o", folder / "runs")
    assert re.search(r"failed +t_perp=0.8 +.*result.nc is damaged; .* is held by", output)
    assert run.result.exists()


def test_a_result_that_is_being_written_to_is_not_called_damaged(swept, tmp_path):
    path = tmp_path / "open.nc"
    shutil.copy(next(swept.glob("runs/*/result.nc")), path)
    with path.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # as HDF5 does while it writes
        with pytest.raises(OrchestraError, match="open for writing in another program") as caught:
            open_result(path)
    assert not isinstance(caught.value, DamagedFileError)
    assert "energy" in open_result(path)


# ---- every point has its own conditions ---------------------------------------------------------

AXES = {
    "beta": "axes: {state.beta: [2.0, 4.0]}",
    "T": "axes: {T: {path: state, values: {two: {beta: 2.0}, '4': {beta: 4.0}}}}",
    "ensemble": "axes: {ensemble: {path: state, values: {cold: {n_up: 1, n_down: 1}, '4': "
    "{beta: 4.0}}}}",
    "boundary": "axes: {boundary: [open, periodic]}",
    "ends": "axes: {ends: {path: boundary, values: [periodic, open]}}",
}


@pytest.mark.cases(3)
@pytest.mark.parametrize("axis", AXES)
def test_figures_and_fits_take_the_conditions_of_every_point(study, axis):
    text = AXES[axis] + f"\nfigure: {{kind: decay, along: {axis}}}\n"
    if axis in ("beta", "T"):
        text = HEAD.replace("model: base.yaml", "model: warm.yaml") + text
    path = study(text)
    warm = BASE.replace("{n_up: 1, n_down: 1}", "{beta: 1.0}")
    (path.parent / "warm.yaml").write_text(warm)
    orchestra("sweep", path, "-o", path.parent / "runs")
    plot(path, None, path.parent / "runs")
    assert (path.parent / "runs" / "scan.png").stat().st_size > 10_000
    dataset = open_result(path.parent / "runs" / "scan.nc")
    if axis in ("T", "boundary"):
        limits = ("--model", "power", "--dim", axis, "--name", "energy")
        with pytest.raises(OrchestraError, match="a limit needs numbers along"):
            orchestra("extrapolate", path.parent / "runs" / "scan.nc", *limits)
    found = [conditions(dataset.isel({axis: k}), None, None) for k in (0, 1)]
    assert (
        found
        == {
            "beta": [(False, 2.0), (False, 4.0)],
            "T": [(False, 2.0), (False, 4.0)],
            "ensemble": [(False, None), (False, 4.0)],
            "boundary": [(False, None), (True, None)],
            "ends": [(True, None), (False, None)],
        }[axis]
    )


def test_an_axis_that_is_called_beta_and_is_none_does_not_give_the_temperature(study):
    path = study("axes: {beta: {path: t_perp, values: [0.3, 0.5]}}")
    orchestra("sweep", path, "-o", path.parent / "runs")
    dataset = open_result(path.parent / "runs" / "scan.nc")
    assert conditions(dataset.isel(beta=1), None, None) == (False, None)


def test_a_figure_along_and_over_the_same_axis_is_refused(study):
    text = "axes: {t_perp: [0.3, 0.5]}\nfigure: {kind: decay, along: t_perp, panels: t_perp}\n"
    assert "line 6: `figure.panels` is the axis of `along`, too" in problem(study(text))


def test_a_picture_is_not_drawn_from_the_data_of_another_version(study):
    text = "axes: {t_perp: [0.3, 0.5]}\nfigure: {kind: decay, along: t_perp}\n"
    path = study(text)
    runs = path.parent / "runs"
    orchestra("sweep", path, "-o", runs)
    study(text.replace("decay", "comparison") + "# drawn otherwise\n")
    plot(path, None, runs)
    study(text.replace("0.5", "0.6"))
    with pytest.raises(OrchestraError, match=r"another version of .*orchestra collect"):
        plot(path, None, runs)


# ---- emptied sections ---------------------------------------------------------------------------


@pytest.mark.parametrize("emptied", ["numerics:\n", "numerics: {exact: }\n", ""])
@pytest.mark.parametrize(
    "lines",
    [
        "axes: {t_perp: [0.3]}\nnumerics: {exact: {seed: 3}}",
        "axes: {numerics.exact.seed: {path: numerics.exact.seed, values: [3]}}".replace(
            "numerics.exact.seed: {", "start: {"
        ),
        "zip:\naxes: {t_perp: [0.3]}\nnumerics: {exact: {seed: 3}}",
    ],
)
def test_a_study_adds_to_an_emptied_section(study, emptied, lines):
    path = study(lines)
    (path.parent / "base.yaml").write_text(BASE + emptied)
    assert load_study(path).points[0].model.numerics.exact.seed == 3


def test_an_emptied_section_of_a_study_takes_nothing_from_its_base(study):
    path = study("axes:\nnumerics: {exact: , block2: {seed: 7}}")
    (path.parent / "base.yaml").write_text(BASE + "numerics: {exact: {seed: 5}}\n")
    numerics = load_study(path).points[0].model.numerics
    assert (numerics.exact.seed, numerics.block2.seed) == (5, 7)


def test_a_section_of_the_base_that_is_none_is_told_with_its_line(study):
    path = study("numerics: {exact: {seed: 3}}")
    (path.parent / "base.yaml").write_text(BASE + "numerics: 5\n")
    assert re.search(r"base.yaml: line 10: `numerics` should be a section", problem(path))


def test_old_sweeps_without_the_models_of_their_points_are_still_read(swept):
    dataset = xr.load_dataset(swept / "runs" / "scan.nc").drop_vars("model")
    assert conditions(dataset.isel(t_perp=0), None, None) == (False, None)
    assert conditions(dataset.isel(t_perp=0).assign_coords(beta=3.0), None, None) == (False, 3.0)

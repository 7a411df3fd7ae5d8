"""The wrong kind of file in every place of the command line: one line, one exit code."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from bilayer_orchestra.cli.app import app
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.spec import STUDY_KEYS, kinds
from bilayer_orchestra.study.spec import Study
from tests.support.models import make_model

STUDY = """\
version: 1
name: study
model: model.yaml
axes: {length: [2, 3, 4]}
backends: [exact]
figure: {kind: decay, along: length}
"""
FILES = [
    "model.yaml",
    "study.yaml",
    "site.toml",
    "empty.yaml",
    "none.yaml",
    "binary.yaml",
    "result.nc",
    "sweep.nc",
    "fit.nc",
    "limit.nc",
    "check.nc",
    "foreign.nc",
    "text.nc",
    "cut.nc",
    "empty.nc",
    "none.nc",
    "directory",
    "out",
]


def orchestra(*arguments):
    """Return (exit code, message) of a command, as `main` shows it."""
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    if isinstance(done.exception, OrchestraError):
        return 3 if arguments[0] == "check" else 1, str(done.exception)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception  # exit code 70
    return done.exit_code, done.stderr.strip().removeprefix("orchestra: ")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "model.yaml").write_text(make_model({"n_up": 1, "n_down": 1}, 2).to_yaml())
        (folder / "study.yaml").write_text(STUDY)
        (folder / "site.toml").write_text('partition = "standard"\n')
        assert orchestra("sweep", "study.yaml", "-o", "out") == (0, "")
        assert orchestra("run", "model.yaml", "-b", "exact", "-o", "out", "--no-plot") == (0, "")
        shutil.copy(folder / "out/study.nc", folder / "sweep.nc")
        shutil.copy(folder / "out/result.nc", folder / "result.nc")
        limits = ("--model", "size", "--name", "energy", "-o", ".")
        assert orchestra("extrapolate", "sweep.nc", *limits) == (0, "")
        xr.Dataset(attrs={"orchestra_fit_schema": 1}).to_netcdf(folder / "fit.nc")
        xr.Dataset(attrs={"orchestra_check": 1}).to_netcdf(folder / "check.nc")
        xr.Dataset({"a": ("x", np.arange(3))}).to_netcdf(folder / "foreign.nc")
        whole = (folder / "result.nc").read_bytes()
        (folder / "cut.nc").write_bytes(whole[:3000])
        (folder / "binary.yaml").write_bytes(whole)
        (folder / "text.nc").write_text("just text\n")
        (folder / "empty.nc").touch()
        (folder / "empty.yaml").touch()
        (folder / "directory").mkdir()
    return folder


#: Command -> (its arguments with FILE, what it takes).
INPUTS = {
    "run": (["run", "FILE", "-b", "exact", "--no-plot", "-o", "other"], {"model.yaml"}),
    "render": (["render", "FILE", "-b", "exact", "-o", "other"], {"model.yaml"}),
    "sweep": (["sweep", "FILE", "-o", "out"], {"study.yaml"}),
    "collect": (["collect", "FILE", "-o", "out"], {"study.yaml"}),
    "check": (["check", "FILE", "--backends", "exact", "-o", "other"], set()),
    "compare": (["check", "result.nc", "FILE", "-o", "other"], {"result.nc"}),
    "identities": (["check", "--identities", "FILE"], {"model.yaml", "result.nc"}),
    "status": (["status", "FILE"], {"out"}),
    "fit": (["fit", "FILE", "-o", "other"], set()),  # of what it could read, nothing is long enough
    "plot": (
        ["plot", "FILE", "--runs", "out", "-o", "x.png"],
        {"study.yaml", "sweep.nc", "result.nc"},
    ),
    "extrapolate": (["extrapolate", "FILE", "--model", "size", "-o", "other"], {"sweep.nc"}),
    "site": (
        ["sweep", "study.yaml", "--runtime", "slurm", "--site", "FILE", "--dry-run"],
        {"site.toml"},
    ),
}


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (command, name)
        for command in INPUTS
        for name in FILES
        if (command, name) != ("check", "model.yaml")  # which is right, and takes ten seconds
    ],
)
def test_a_wrong_file_is_one_clear_line(files, monkeypatch, command, name):
    monkeypatch.chdir(files)
    arguments, taken = INPUTS[command]
    code, message = orchestra(*(name if one == "FILE" else one for one in arguments))
    if name in taken:
        assert code == 0, message
        return
    assert code == (3 if arguments[0] == "check" else 1), message
    assert len(message.splitlines()) == 1, message
    if not (command == "fit" and name in ("result.nc", "sweep.nc")):
        assert name in message or command in ("check", "compare"), message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "sweep.nc"], "sweep.nc holds a collected sweep; needed here: a result, such as"),
        (["check", "sweep.nc", "sweep.nc"], "holds a collected sweep"),
        (["check", "--identities", "sweep.nc"], "holds a collected sweep"),
        (["check", "limit.nc", "result.nc"], "holds limits"),
        (["check", "study.yaml"], "is a study"),
        (["fit", "check.nc"], "holds the report of a check"),
        (["fit", "out"], "is a directory; name a file in it, such as out/result.nc"),
        (["fit", "study.yaml"], "no netCDF file"),
        (["plot", "fit.nc"], "holds fits"),
        (["plot", "model.yaml"], "is a model, not a study"),
        (
            ["extrapolate", "result.nc", "--model", "size"],
            "holds a result; needed here: a collected",
        ),
        (["run", "study.yaml"], "is a study, not a model; `orchestra sweep`"),
        (["run", "result.nc"], "is a dataset"),
        (["run", "empty.yaml"], "the file is empty"),
        (["sweep", "model.yaml"], "is a model, not a study; `orchestra run`"),
        (["collect", "result.nc"], "is a dataset"),
        (["sweep", "directory"], "is a directory"),
        (["status", "result.nc"], "no runs in result.nc: name the directory"),
    ],
)
def test_the_line_says_what_the_file_is_and_what_to_do(files, monkeypatch, arguments, words):
    monkeypatch.chdir(files)
    code, message = orchestra(*arguments)
    assert code == (3 if arguments[0] == "check" else 1)
    assert words in message


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "model.yaml", "-b", "exact", "--no-plot"],
        ["sweep", "study.yaml"],
        ["collect", "study.yaml"],
        ["render", "model.yaml", "-b", "exact"],
        ["extrapolate", "sweep.nc", "--model", "size", "--name", "energy"],
        ["check", "result.nc", "result.nc"],
    ],
)
@pytest.mark.parametrize("target", ["site.toml", "site.toml/below/it"])
def test_an_output_that_is_a_file_is_one_clear_line(files, monkeypatch, arguments, target):
    monkeypatch.chdir(files)
    code, message = orchestra(*arguments, "-o", target)
    assert code == (3 if arguments[0] == "check" else 1)
    assert message.startswith("cannot write to site.toml")
    assert message.endswith("site.toml is a file, not a directory")
    assert (files / "site.toml").read_text() == 'partition = "standard"\n'


@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        (["plot", "result.nc", "-o", "blocked.png"], "blocked.png"),
        (["run", "model.yaml", "-b", "exact", "--no-plot", "-o", "out"], "out/result.nc"),
        (["collect", "study.yaml", "-o", "out"], "out/study.nc"),
        (["extrapolate", "sweep.nc", "--model", "size", "--name", "energy"], "limit.nc"),
        (["check", "result.nc", "result.nc"], "check.nc"),
    ],
)
def test_a_directory_in_the_place_of_a_file_is_one_clear_line(
    files, monkeypatch, tmp_path, arguments, target
):
    folder = tmp_path / "copy"
    shutil.copytree(files, folder)
    monkeypatch.chdir(folder)
    (folder / target).unlink(missing_ok=True)
    (folder / target).mkdir()
    code, message = orchestra(*arguments)
    assert code == (3 if arguments[0] == "check" else 1)
    assert message.startswith(f"cannot write {target}: ")
    assert "directory" in message
    assert "disk full" not in message


def test_the_keys_that_tell_a_study_from_a_model_are_those_of_the_files():
    models = {key for kind in kinds().values() for key in kind.model_fields}
    assert set(Study.model_fields) - models == STUDY_KEYS


def test_a_base_that_is_a_study_is_told_as_one(files, monkeypatch):
    monkeypatch.chdir(files)
    (files / "above.yaml").write_text("version: 1\nname: a\nmodel: study.yaml\n")
    assert "is a study; `model` names the file of one model" in orchestra("sweep", "above.yaml")[1]
    assert "is a study, not a model" in orchestra("run", "above.yaml")[1]


@pytest.mark.parametrize("name", ["result", "fit", "limit", "check", "scan-fits"])
def test_a_study_is_not_called_as_another_file_beside_it(files, tmp_path, name):
    path = tmp_path / "study.yaml"
    text = STUDY.replace("name: study", f"name: {name}")
    path.write_text(text.replace("model.yaml", str(files / "model.yaml")))
    code, message = orchestra("sweep", path, "-o", tmp_path / "out")
    assert code == 1
    assert "line 2: `name` is what this program calls a file of its own beside it" in message


@pytest.mark.parametrize(
    ("arguments", "source", "written"),
    [
        (["fit", "--what", "pair"], "result.nc", "fit.nc"),
        (["extrapolate", "--model", "size", "--name", "energy"], "sweep.nc", "limit.nc"),
        (["check", "result.nc"], "result.nc", "check.nc"),
    ],
)
def test_no_command_replaces_what_it_reads(
    files, monkeypatch, tmp_path, arguments, source, written
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(files / "result.nc", "result.nc")
    shutil.copy(files / source, written)
    content = (tmp_path / written).read_bytes()
    code, message = orchestra(arguments[0], written, *arguments[1:])
    assert code == (3 if arguments[0] == "check" else 1)
    assert message.startswith(f"{written} would be replaced by what is made of it")
    assert (tmp_path / written).read_bytes() == content


def test_what_is_made_of_a_sweep_is_no_sweep(files, tmp_path):
    attributes = {"orchestra_fit_schema": 1, "study": STUDY, "study_name": "study"}
    xr.Dataset(attrs=attributes).to_netcdf(tmp_path / "fit.nc")
    for command in (["fit"], ["plot"], ["check", files / "result.nc"]):
        code, message = orchestra(command[0], tmp_path / "fit.nc", *command[1:])
        assert code == (3 if command[0] == "check" else 1)
        assert "holds fits, not what was fitted" in message


def rewritten(files, folder, change):
    """A result as another program has left it."""
    dataset = xr.load_dataset(files / "result.nc")
    change(dataset).to_netcdf(folder / "changed.nc")
    return folder / "changed.nc"


def without(name):
    def change(data):
        del data.attrs[name]
        return data

    return change


CHANGES = {
    "no converged": without("converged"),
    "no backend": without("backend"),
    "no request_hash": without("request_hash"),
    "a word": lambda data: data.assign_attrs(converged="maybe"),
    "no coordinate": lambda data: data.drop_vars("layer"),
    "another dimension": lambda data: data.rename({"x": "y", "x_": "y_"}),
    "one more dimension": lambda data: data.assign(energy=("x", [1.0, 2.0])),
    "no number": lambda data: data.assign(energy="low"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_result_that_another_program_rewrote_is_one_clear_line(files, tmp_path, change):
    path = rewritten(files, tmp_path, CHANGES[change])
    for more in (["--identities"], [files / "result.nc"]):
        code, message = orchestra("check", path, *more, "-o", tmp_path)
        assert code == 3
        assert message.startswith(f"{path} was changed by another program: ")


@pytest.mark.parametrize("change", CHANGES)
def test_one_result_that_another_program_rewrote_stops_no_study(files, tmp_path, change):
    out = tmp_path / "out"
    shutil.copytree(files / "out", out)
    victim = next(path for path in sorted(out.glob("*/result.nc")) if "-exact-" in str(path))
    dataset = xr.load_dataset(victim)
    if change == "one more dimension":
        dataset["energy"] = ("x", dataset.x.values.astype(float))
    else:
        dataset = CHANGES[change](dataset)
    victim.unlink()
    dataset.to_netcdf(victim)
    code, _ = orchestra("sweep", files / "study.yaml", "-o", out)
    assert code == 0
    assert victim.with_name("result.nc.damaged").exists()
    with xr.open_dataset(out / "study.nc") as collected:
        assert (collected.status == "finished").all()


@pytest.mark.parametrize(
    "text",
    [
        "numerics: [1]",
        "layers: 3\nstate: x\nnumerics: {exact: 3}",
        "date: 2001-13-45",
        "a: " + "[" * 3000,
        "a: " + "9" * 5000,
        None,
    ],
)
def test_status_lists_a_run_whatever_its_model_file_holds(files, tmp_path, text):
    """In a shared directory, one user's file must not stop the list of all."""
    out = tmp_path / "out"
    shutil.copytree(files / "out", out)
    model = next(out.glob("*/model.yaml"))
    model.unlink()
    if text is None:
        os.mkfifo(model)
    else:
        model.write_text(text)
    done = CliRunner().invoke(app, ["status", str(out)])
    assert done.exit_code == 0, done.exception
    assert model.parent.name in done.output


def test_status_lists_a_run_without_its_record(files, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(files / "out", out)
    run = next(out.glob("*/run.json"))
    run.unlink()
    done = CliRunner().invoke(app, ["status", str(out)])
    assert done.exit_code == 0
    assert run.parent.name in done.output


def test_damaged_notes_of_an_execution_are_those_of_none(files, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(files / "out", out)
    place = next(out.glob("*/executed.json"))
    place.write_text('{"runtime": "local", "host": null}')
    (place.parent / "result.nc").unlink()
    assert orchestra("sweep", files / "study.yaml", "-o", out)[0] == 0
    assert (place.parent / "result.nc").exists()


def test_an_output_that_is_a_link_to_nothing_is_called_that(files, tmp_path):
    (tmp_path / "gone").symlink_to("nowhere")
    code, message = orchestra("run", files / "model.yaml", "-o", tmp_path / "gone", "--no-plot")
    assert code == 1
    assert message.endswith(f"{tmp_path}/gone is a link to nothing")

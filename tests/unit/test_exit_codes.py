"""Exit codes: one page, one table in the code, and what the program really ends with."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

import bilayer_orchestra.cli
from bilayer_orchestra import display
from bilayer_orchestra.cli import verdicts
from bilayer_orchestra.cli.main import main
from bilayer_orchestra.cli.results import EXIT_CODES
from bilayer_orchestra.display import Output
from bilayer_orchestra.engines.exact.engine import ExactEngine
from bilayer_orchestra.errors import ExitCode, Interrupted
from bilayer_orchestra.model import spec
from tests.support.models import make_model
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "exit-codes.md"
CLI = Path(bilayer_orchestra.cli.__file__).parent


@pytest.fixture
def orchestra(tmp_path, monkeypatch, capsys):
    """Return what runs the program in this process: (exit code, output, errors)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which `main` replaces

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["orchestra", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text(make_model({"n_up": 1, "n_down": 1}, 2).to_yaml())
    return path


@pytest.fixture
def study(tmp_path, model):
    path = tmp_path / "study.yaml"
    head = "version: 1\nname: scan\nmodel: model.yaml\nbackends: [exact]\n"
    path.write_text(f"{head}axes: {{t_perp: [0.5, 0.8]}}\n")
    return path


@pytest.fixture
def unconverged(monkeypatch):
    """Make exact diagonalization doubt itself at t_perp = 0.8."""
    original = ExactEngine.parse

    def parse(self, directory, request):
        averages = original(self, directory, request)
        if abs(request.terms.one_body[0, 1]) == 0.8:
            averages.converged, averages.reason = False, "doubts"
        return averages

    monkeypatch.setattr(ExactEngine, "parse", parse)


def test_the_page_lists_every_code_and_no_other():
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", PAGE.read_text(), re.MULTILINE)
    of_check = {int(code) for code, who in rows if who.strip() == "`check`"}
    others = {int(code) for code, who in rows if who.strip() != "`check`"}
    assert others == {int(code) for code in ExitCode} - {3}
    assert of_check | {0} == {*EXIT_CODES.values(), ExitCode.COULD_NOT_RUN}


def test_no_command_ends_with_a_number_of_its_own():
    found = []
    for file in CLI.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("typer.Exit", "sys.exit"):
                found += [
                    f"{file.name}:{node.lineno}"
                    for one in node.args
                    if isinstance(one, ast.Constant)
                ]
    assert not found


def test_strict_tells_a_result_that_is_not_converged(orchestra, model, unconverged):
    assert orchestra("run", model, "--no-plot", "--strict")[0] == 0
    far = ("run", model, "--no-plot", "--set", "t_perp=0.8")
    assert orchestra(*far)[0] == 0
    code, output, _ = orchestra(*far, "--strict")  # a stored one as well
    assert code == ExitCode.NOT_CONVERGED
    assert "NO: doubts" in output


@pytest.mark.parametrize("command", ["sweep", "collect"])
def test_strict_tells_a_point_that_is_not_converged(orchestra, study, unconverged, command):
    if command == "collect":
        code, output, _ = orchestra("collect", study, "--strict")
        assert (code, "0 of 2 points" in output) == (ExitCode.FAILED, True)
        orchestra("sweep", study)
    assert orchestra(command, study)[0] == 0
    code, output, _ = orchestra(command, study, "--strict")
    assert code == ExitCode.NOT_CONVERGED
    assert "NOT converged  t_perp=0.8  doubts" in output
    study.write_text(study.read_text().replace(", 0.8", ""))
    assert orchestra(command, study, "--strict")[0] == 0


def test_what_is_missing_goes_before_what_is_not_converged(
    orchestra, study, unconverged, monkeypatch
):
    orchestra("sweep", study)
    study.write_text(study.read_text().replace("0.5", "0.6"))
    monkeypatch.setattr(ExactEngine, "render", lambda *_: 1 / 0)
    assert orchestra("collect", study, "--strict")[0] == ExitCode.FAILED
    assert orchestra("collect", study)[0] == 0


def test_strict_means_nothing_for_what_is_only_submitted(orchestra, study):
    code, _, errors = orchestra("sweep", study, "--runtime", "slurm", "--strict")
    assert (code, "orchestra collect" in errors) == (ExitCode.FAILED, True)


def raising(error):
    def fail(*_arguments, **_options):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "of_check"),
    [
        (MemoryError(), 1, 3),
        (Interrupted(), 130, 130),
        (ValueError("odd"), 70, 70),
    ],
)
def test_every_failure_has_its_code(orchestra, model, monkeypatch, error, code, of_check):
    """An exit code of `check` that means a verdict never stands for a failure."""
    monkeypatch.setattr(spec, "load_model", raising(error))
    monkeypatch.setattr(verdicts, "load_model", raising(error))
    for command, expected in (("run", code), ("check", of_check)):
        ended, _, errors = orchestra(command, model)
        assert ended == expected
        assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run", "model.yaml", "--no-plot"], 1),
        (["check", "--identities", "runs/test/result.nc"], 3),
    ],
)
def test_nobody_who_reads_is_a_failure_and_no_verdict(orchestra, model, tmp_path, arguments, code):
    assert orchestra("run", model, "--no-plot")[0] == 0
    command = [sys.executable, "-m", "bilayer_orchestra.cli.main", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe) as process:
        process.stdout.close()  # as `| head` does, before a line is printed
        errors = process.stderr.read()
    assert process.returncode == code, errors
    assert b"Traceback" not in errors


def test_failures_and_wrong_usage(orchestra, model):
    assert orchestra("run", "none.yaml")[0] == ExitCode.FAILED
    assert orchestra("check", "none.yaml")[0] == ExitCode.COULD_NOT_RUN
    for wrong in ((), ("run",), ("nonsense",), ("run", model, "--nonsense")):
        assert orchestra(*wrong)[0] == ExitCode.USAGE, wrong
    for wrong in (("check",), ("check", model, "--nonsense")):
        assert orchestra(*wrong)[0] == ExitCode.COULD_NOT_RUN, wrong


def test_warnings_of_libraries_show_no_source(orchestra, model, monkeypatch):
    original = spec.load_model

    def warn(*arguments):
        warnings.warn("invalid value\n  encountered", RuntimeWarning, stacklevel=1)
        return original(*arguments)

    monkeypatch.setattr(spec, "load_model", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, _, errors = orchestra("run", model, "--no-plot")
    assert code == 0
    assert errors == "orchestra: warning: invalid value encountered\n"


def test_a_log_shows_a_sign_of_life(monkeypatch):
    """A sweep that computes one long point is heard of, also if its engine says nothing."""
    monkeypatch.setattr(display, "HEARTBEAT", 1e-3)

    class Log(io.StringIO):
        heard = threading.Event()

        def write(self, text):
            if "0 of 3  running  long: sweep 7" in text:
                self.heard.set()
            return super().write(text)

    log = Log()
    with display.points_shown(Output(file=log, width=200), 3) as show:
        show.progress("long", "sweep 7")
        assert log.heard.wait(60)
    length = len(log.getvalue())
    assert not [one for one in threading.enumerate() if "(repeat)" in one.name]
    assert len(log.getvalue()) == length

"""What a run says while it runs: every sweep, and something in every minute."""

from __future__ import annotations

import json
import time
from io import StringIO

import pytest

from bilayer_orchestra import heartbeat
from bilayer_orchestra.display import Output, progress
from bilayer_orchestra.engine_side.files import PROGRESS, report
from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.running.point import Runner, make_request, poller, run_point
from tests.support.models import make_model

MODEL = make_model({"n_up": 2, "n_down": 2})


def sweep(directory, number):
    numbers = {"energy": -1.0, "bond": 50, "discarded_weight": 1e-9, "seconds": 0.1}
    report(directory, step="sweep", sweep=number, **numbers)


@pytest.mark.parametrize("name", ["block2", "itensor"])
def test_no_sweep_is_left_out_and_none_of_an_earlier_attempt_is_news(tmp_path, name, monkeypatch):
    monkeypatch.setenv("ORCHESTRA_JULIA", str(tmp_path / "none"))
    backend, said = get_engine(name), []
    sweep(tmp_path, 1)
    runner = Runner(tmp_path, tell=said.append)
    poll = poller(backend, make_request(MODEL, backend), tmp_path, runner)
    poll()
    assert [line.rpartition("first ")[2] for line in said] == ["sweep"]
    sweep(tmp_path, 2)
    sweep(tmp_path, 3)
    with (tmp_path / PROGRESS).open("a") as stream:
        stream.write('{"step": "swe')  # being written
    poll()
    assert [line.split("E")[0].split() for line in said[1:]] == [["sweep", "2"], ["sweep", "3"]]
    poll()
    assert len(said) == 3


def test_a_run_shows_every_sweep(tmp_path):
    pytest.importorskip("block2", reason="block2 is missing: pip install block2")
    said = []
    run = run_point(MODEL, get_engine("block2"), Runner(tmp_path, tell=said.append)).run
    events = [json.loads(line) for line in (run.job / PROGRESS).read_text().splitlines()]
    sweeps = [event["sweep"] for event in events if event["step"] == "sweep"]
    shown = [int(line.split()[1]) for line in said if line.startswith("sweep ")]
    assert shown == sweeps
    assert sweeps[0] == 1
    assert said[-1].startswith("next state: sweep")


def test_silence_is_broken_once_a_minute(monkeypatch):
    clock, said = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    beating = heartbeat.Heartbeat(said.append)

    def at(seconds, line=None):
        clock[0] = seconds
        if line is not None:
            beating.news(line)
        beating.beat()
        return said[-1] if said else None

    assert at(90) is None
    assert at(100, "compiling") == "compiling"
    assert at(159) == "compiling"
    assert at(161) == "compiling (for 1 min by now)"
    assert at(190, "compiling") == said[1]
    assert at(221) == "compiling (for 2 min by now)"
    assert at(230, "done") == "done"
    assert at(289) == "done"
    assert len(said) == 4


def shown(terminal, *lines):
    console = Output(file=StringIO(), force_terminal=terminal, width=80)
    with progress(console) as show:
        for line in lines:
            show(line)
    return console.file.getvalue()


def test_a_log_does_not_repeat_what_stays():
    stop = "touch runs/[/red]/job/stop"
    text = shown(False, f"3 bins\n{stop}", f"4 bins\n{stop}", f"4 bins\n{stop}", "5 bins")
    rows = [row.strip().rpartition("s  ")[2] for row in text.splitlines()]
    assert rows == ["3 bins", stop, "4 bins", "5 bins"]
    assert stop in shown(True, f"3 bins\n{stop}")

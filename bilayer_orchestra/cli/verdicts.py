"""What ``orchestra check`` does and prints: results that are compared, or tested each alone."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr
from rich.table import Table

from bilayer_orchestra.checking.comparison import LEVEL, Word
from bilayer_orchestra.checking.identities import check_identities
from bilayer_orchestra.checking.plan import Check, compare_files, usable_engines
from bilayer_orchestra.checking.report import PAGE, write_report
from bilayer_orchestra.checking.verdict import SEVERITY, PairVerdict, Verdict
from bilayer_orchestra.cli.tables import plain_table
from bilayer_orchestra.dataset.reading import parameters
from bilayer_orchestra.dataset.schema import open_result
from bilayer_orchestra.display import output_console, progress
from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.spec import Model, load_model
from bilayer_orchestra.running.choice import engine_for
from bilayer_orchestra.running.directory import runs_directory
from bilayer_orchestra.running.point import Runner
from bilayer_orchestra.running.published import CHECK, refuse_own_source
from bilayer_orchestra.tuning.point import run_model

#: Outcome of an identity -> what it makes of the result; any other agrees.
_OF_OUTCOMES: dict[str, Word] = {"violated": "disagree", "undecided": "undecided"}


@dataclass(frozen=True)
class Asked:
    """What ``check`` is asked to do.

    Parameters
    ----------
    targets : list of Path
        A model file, or stored results.
    names : list of str
        Of the engines; empty: all that are found and can solve it.
    output : Path or None
        Directory of runs and report.
    overrides : sequence of str or None
        ``key.key=value`` texts.
    distance : int
        Sites so far apart must agree.
    any_version : bool or None
        See :class:`bilayer_orchestra.running.point.Runner`.
    """

    targets: list[Path]
    names: list[str]
    output: Path | None
    overrides: Sequence[str] | None
    distance: int
    any_version: bool | None

    def _model(self, file: Path) -> tuple[Model, Path]:
        """Return the model of a file, and the directory of its runs."""
        model = load_model(file, self.overrides)
        return model, runs_directory(model.name, self.output)

    def compare_engines(self) -> tuple[Verdict, Path]:
        """Return the verdict on a model that several engines solve, and the report's directory."""
        if len(self.targets) != 1:
            raise OrchestraError("give one model file, or two or more results (.nc)")
        console, (model, root) = output_console(), self._model(self.targets[0])
        names = list(dict.fromkeys(self.names))
        for name in names:
            get_engine(name).version()
        if not names:
            names, without = usable_engines(model)
            for line in without:
                console.say(line)
        with progress(console) as show:
            check = Check(model, names, root, show, self.distance, self.any_version)
            return check.run(), root

    def compare_results(self) -> tuple[Verdict, Path]:
        """Return the verdict on stored results, and the report's directory."""
        opened = [open_result(one, ("a result",)) for one in self.targets if one.suffix == ".nc"]
        if len(opened) < max(2, len(self.targets)):
            raise OrchestraError(
                "to compare stored results give two or more files result.nc; to solve a model give "
                "its model file alone; one result alone can be tested with --identities"
            )
        if self.names or self.overrides or self.any_version is not None:
            raise OrchestraError(
                "--backends, --set, --any-version and --this-version have no meaning for stored "
                "results"
            )
        root = self.output or Path()
        refuse_own_source(root / CHECK[0], *self.targets)
        results: dict[str, xr.Dataset] = {}
        for dataset in opened:
            label = str(dataset.attrs["backend"])
            results[f"{label} {len(results) + 1}" if label in results else label] = dataset
        return compare_files(results, str(opened[0].attrs["model_name"]), self.distance), root

    def each_alone(self) -> Word:
        """Test stored results, or what the engines return for a model file, by identities."""
        console, results = output_console(), list[tuple[str, xr.Dataset]]()
        for target in self.targets:
            if target.suffix == ".nc":
                dataset = open_result(target, ("a result",))
                results.append((f"{target} ({dataset.attrs['engine']})", dataset))
                continue
            model, root = self._model(target)
            with progress(console) as show:
                runner = Runner(root, tell=show, any_version=self.any_version)
                for name in self.names or ["auto"]:
                    engine = engine_for(model, name)
                    solved = run_model(model, engine, runner).dataset
                    results.append((f"{model.name} with {engine.name}", solved))
        words: list[Word] = []
        for label, dataset in results:
            table = plain_table("identity", "outcome", "detail")
            found: list[Word] = ["agree" if dataset.attrs["converged"] else "undecided"]
            for identity in check_identities(dataset):
                table.add_row(identity.name, identity.outcome, identity.detail)
                found.append(_OF_OUTCOMES.get(identity.outcome, "agree"))
            words.append(max(found, key=SEVERITY.index))
            console.say(f"\n{label}")
            console.print(table)
            console.say(words[-1].upper())
        return max(words, key=SEVERITY.index)


def report(outcome: Verdict, root: Path, style: Path | None) -> None:
    """Print the verdicts; leave check.nc and, where its libraries are there, check.html.

    Parameters
    ----------
    outcome : Verdict
        Of the whole check.
    root : Path
        Directory of the report.
    style : Path or None
        A matplotlib style.
    """
    console = output_console()
    for verdict in outcome.verdicts:
        console.say(f"\n{verdict.first} and {verdict.second}")
        console.print(verdict_table(verdict))
        console.say(f"{verdict.word.upper()}: {verdict.reason}")
        if verdict.cause:
            console.say(f"likely cause: {verdict.cause}")
        if verdict.note:
            console.say(f"note: {verdict.note}")
    console.say("")
    for line in [*(outcome.ladder.describe() if outcome.ladder else []), *outcome.notes]:
        console.say(line)
    if outcome.model is not None:
        console.say(f"parameters: {parameters(outcome.model.to_data())}")
    headline = _headline(outcome)
    console.say(headline)
    console.say(f"dataset  {write_report(outcome, root, headline)}")
    try:
        from bilayer_orchestra.plots.check_page import write_page
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "jinja2":
            raise
        console.say("no report: pip install matplotlib jinja2")
        return
    console.say(f"report   {write_page(outcome, root / PAGE, headline, style)}")


def _headline(outcome: Verdict) -> str:
    """Return the verdict of the whole check in one line."""
    counts = Counter(verdict.word for verdict in outcome.verdicts)
    found = ", ".join(f"{counts[word]} {word}" for word in sorted(counts))
    scope = f"{len(outcome.verdicts)} pairs of results: {found}" if found else "nothing compared"
    unreached = outcome.ladder is not None and outcome.ladder.out_of_reach
    limit = "; T -> 0 was NOT checked (out of reach)" if unreached else ""
    reach = f" up to distance {outcome.distance}" if outcome.distance is not None else ""
    return (
        f"{outcome.name}: {outcome.word.upper()}{reach} ({scope}{limit}; "
        f"false alarms at most {100 * LEVEL:g} %)"
    )


def verdict_table(verdict: PairVerdict) -> Table:
    """Return one row per observable."""
    table = plain_table(
        *("observable", "verdict", "p", "chi2/dof", "worst", "pull", "systematic"),
        *("up to", "would notice", "why"),
    )
    for finding in verdict.findings:
        test = finding.test
        if test is None:
            table.add_row(finding.name, finding.word, *[""] * 7, finding.reason)
            continue
        # spin=up layer=P x=0 layer_=M x_=3 becomes up P0 M3
        worst = re.sub(r"\w+=", "", re.sub(r" x_?=", "", finding.worst_label))
        named = ", ".join(
            f"{what.split(' (')[0]} {size:.1g}"
            for what, size in finding.systematics.items()
            if size > 1e-12
        )
        table.add_row(
            finding.name,
            finding.word,
            f"{finding.corrected_p:.2g}",
            f"{test.chi2:.2f} ({test.modes})" if test.modes else "",
            worst if test.pulls[test.worst] else "",
            f"{test.pulls[test.worst]:+.1f}",
            named,
            "" if finding.distance is None else str(max(finding.distance, 0)),
            f"{100 * finding.detectable:.2g} %",
            "" if finding.word == "agree" else finding.reason,
        )
    return table

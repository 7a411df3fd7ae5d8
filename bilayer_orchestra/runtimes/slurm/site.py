"""The site profile: what a cluster wants to hear, in a small TOML file.

::

    partition = "standard"
    account = "e123"
    time = "2:00:00"            # of one array task
    memory = "4G"               # of one array task
    cpus = 4                    # of one array task
    points_per_task = 8         # small points packed into one allocation
    cpus_per_point = 1          # hence four of them side by side
    modules = ["apptainer"]

    [images]
    alf = "/shared/images/alf.sif"

It is yours or root's, and trusted: ``prologue`` is shell, ``sbatch`` are options of sbatch.
"""

from __future__ import annotations

import re
import stat
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import Field, PrivateAttr, ValidationError, field_validator

from bilayer_orchestra.configuration import config_file
from bilayer_orchestra.errors import SpecError
from bilayer_orchestra.files import expand, other_owner, user_path
from bilayer_orchestra.images.use import recipes
from bilayer_orchestra.model.spec import read_text
from bilayer_orchestra.settings import LINE, WORD, SpecModel
from bilayer_orchestra.yaml_text import KeyPath, describe_all, in_file_order, syntax_problem

Word = Annotated[str, Field(min_length=1, pattern=WORD)]
Line = Annotated[str, Field(min_length=1, pattern=LINE)]


class Site(SpecModel):
    """One cluster."""

    partition: Annotated[Word | None, Field(description="sbatch --partition")] = None
    account: Annotated[Word | None, Field(description="sbatch --account")] = None
    qos: Annotated[Word | None, Field(description="sbatch --qos")] = None
    time: Annotated[Word, Field(description="time limit of one array task, as sbatch --time")] = (
        "1:00:00"
    )
    memory: Annotated[Word | None, Field(description="sbatch --mem")] = None
    cpus: Annotated[int, Field(ge=1, description="cores of one array task")] = 1
    points_per_task: Annotated[int, Field(ge=1, description="points in one allocation")] = 1
    cpus_per_point: Annotated[
        int | None, Field(ge=1, description="cores of one point [all, or 1 if several]")
    ] = None
    array_limit: Annotated[int, Field(ge=1, description="most tasks of one array job")] = 1000
    concurrent: Annotated[int | None, Field(ge=1, description="most tasks that run at once")] = None
    signal: Annotated[
        int, Field(ge=0, le=65535, description="seconds before the limit at which engines stop")
    ] = 60
    requeues: Annotated[
        int, Field(ge=0, description="times a task goes back into the queue at its time limit")
    ] = 3
    modules: Annotated[tuple[Word, ...], Field(description="module load")] = ()
    sbatch: Annotated[tuple[Line, ...], Field(description="further #SBATCH options")] = ()
    prologue: Annotated[tuple[str, ...], Field(description="shell lines before the engines")] = ()
    launcher: Annotated[Line | None, Field(description="MPI launcher, e.g. srun -n {ranks}")] = None
    python: Annotated[Line | None, Field(description="Python of native engines [this one]")] = None
    container: Annotated[Line, Field(description="apptainer or singularity")] = "apptainer"
    binds: Annotated[tuple[Line, ...], Field(description="further --bind of containers")] = ()
    images: Annotated[dict[str, str], Field(description="engine -> image")] = Field(
        default_factory=dict
    )

    @field_validator("modules", "sbatch", "prologue", "binds", mode="before")
    @classmethod
    def _lists(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("python", "container", "launcher", "binds")
    @classmethod
    def _homes(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        # they are quoted in the task's script: no shell expands them
        return tuple(map(expand, value)) if isinstance(value, tuple) else value and expand(value)

    _source: str | None = PrivateAttr(default=None)

    @property
    def source(self) -> str | None:
        """How the profile was named."""
        return self._source

    @property
    def parallel(self) -> int:
        """Points that run side by side in one allocation."""
        return max(1, min(self.points_per_task, self.cpus // self.point_cpus))

    @property
    def point_cpus(self) -> int:
        """Cores of one point."""
        return self.cpus_per_point or (self.cpus if self.points_per_task == 1 else 1)


def load_site(named: str | None, beside: Path, images: dict[str, str]) -> Site:
    """Read a site profile.

    Parameters
    ----------
    named : str or None
        A TOML file (relative to ``beside`` or here), or the name of ``sites/NAME.toml`` beside the
        configuration file; None: everything is the cluster's default.
    beside : Path
        Directory of the file that names it.
    images : dict
        Kind of image -> file; goes before the profile's.
    """
    if named is None:
        return Site(images=images)
    path = _find(named, beside)
    if (owner := other_owner(path)) not in (None, "root") or path.stat().st_mode & stat.S_IWOTH:
        who = f"belongs to {owner}" if owner else "is writable by everybody"
        raise SpecError(
            str(path),
            [f"{who}, and its lines would run as you; read it and use a copy of your own"],
        )
    text = read_text(path)
    try:
        data = tomllib.loads(text)
    except ValueError as error:
        place = re.fullmatch(r"(.*) \(at line (\d+), column \d+\)", str(error))
        last = len(text.splitlines())  # tomllib says "at end of document"
        what, line = (place[1], int(place[2])) if place else (str(error), last)
        line, what = syntax_problem(what, text, line)
        raise SpecError(str(path), [f"not valid TOML: line {line}: {what}"]) from error
    if not data:
        raise SpecError(str(path), ["says nothing; without --site all is the cluster's default"])
    try:
        site = Site.model_validate(data)
    except ValidationError as error:
        problems = describe_all(_TomlLines(text).place_of, error.errors(), Site)
        raise SpecError(str(path), in_file_order(problems)) from error
    known = recipes()
    unknown = [kind for kind in site.images if kind not in known]
    if unknown:
        where = _TomlLines(text).place_of(("images",))
        problem = f"{where}`images` names `{unknown[0]}`; known: {', '.join(known)}"
        raise SpecError(str(path), [problem])
    complete = site.model_copy(update={"images": {**site.images, **images}})
    complete._source = named
    return complete


def _find(named: str, folder: Path) -> Path:
    beside = config_file().parent / "sites" / f"{named}.toml"
    candidates = [folder / user_path(named), user_path(named), beside]
    for path in candidates:
        if path.is_file():
            return path
    shown = ", ".join(str(path) for path in candidates)
    raise SpecError(named, [f"there is no such site profile; looked for {shown}"])


class _TomlLines:
    """Lines of the keys of a flat TOML file."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()

    def place_of(self, path: KeyPath) -> str:
        key = re.escape(str(path[-1] if isinstance(path[-1], str) else path[0])) if path else "$^"
        for number, line in enumerate(self.lines, start=1):
            if re.match(rf"\s*\[?\"?{key}\"?\s*[=\]]", line):
                return f"line {number}: "
        return ""

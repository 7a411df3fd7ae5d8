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

import re
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from bilayer_orchestra.configuration import config_file
from bilayer_orchestra.errors import SpecError
from bilayer_orchestra.files import expand, other_owner, user_path
from bilayer_orchestra.images.use import recipes
from bilayer_orchestra.model.spec import read_text
from bilayer_orchestra.settings import AS_TUPLE, LINE, WORD, SpecModel
from bilayer_orchestra.yaml_text import KeyPath, describe_all, in_file_order, syntax_problem

Word = Annotated[str, Field(min_length=1, pattern=WORD)]
Line = Annotated[str, Field(min_length=1, pattern=LINE)]
#: A line in which ``~`` is replaced: it is quoted in the task's script, where no shell does that.
Home = Annotated[Line, AfterValidator(expand)]
Words = Annotated[tuple[Word, ...], AS_TUPLE]
Lines = Annotated[tuple[Line, ...], AS_TUPLE]
Texts = Annotated[tuple[str, ...], AS_TUPLE]
Binds = Annotated[tuple[Home, ...], AS_TUPLE]


class SiteProfile(SpecModel):
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
    modules: Annotated[Words, Field(description="module load")] = ()
    sbatch: Annotated[Lines, Field(description="further #SBATCH options")] = ()
    prologue: Annotated[Texts, Field(description="shell lines before the engines")] = ()
    launcher: Annotated[Home | None, Field(description="MPI launcher, e.g. srun -n {ranks}")] = None
    python: Annotated[Home | None, Field(description="Python of native engines [this one]")] = None
    container: Annotated[Home, Field(description="apptainer or singularity")] = "apptainer"
    binds: Annotated[Binds, Field(description="further --bind of containers")] = ()
    images: Annotated[dict[str, str], Field(description="engine -> image")] = Field(
        default_factory=dict
    )

    @property
    def parallel(self) -> int:
        """Points that run side by side in one allocation."""
        return max(1, min(self.points_per_task, self.cpus // self.point_cpus))

    @property
    def point_cpus(self) -> int:
        """Cores of one point."""
        return self.cpus_per_point or (self.cpus if self.points_per_task == 1 else 1)


def load_site(named: str | None, beside: Path, images: dict[str, str]) -> SiteProfile:
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
        return SiteProfile(images=images)
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
        site = SiteProfile.model_validate(data)
    except ValidationError as error:
        problems = describe_all(_TomlLines(text).place_of, error.errors(), SiteProfile)
        raise SpecError(str(path), in_file_order(problems)) from error
    known = recipes()
    for kind in site.images:
        if kind not in known:
            where = _TomlLines(text).place_of(("images",))
            problem = f"{where}`images` names `{kind}`; known: {', '.join(known)}"
            raise SpecError(str(path), [problem])
    return site.model_copy(update={"images": {**site.images, **images}})


def _find(named: str, folder: Path) -> Path:
    beside = config_file().parent / "sites" / f"{named}.toml"
    candidates = [folder / user_path(named), user_path(named), beside]
    for path in candidates:
        if path.is_file():
            return path
    shown = ", ".join(str(path) for path in candidates)
    raise SpecError(named, [f"there is no such site profile; looked for {shown}"])


@dataclass
class _TomlLines:
    """Lines of the keys of a flat TOML file."""

    text: str

    def place_of(self, path: KeyPath) -> str:
        key = re.escape(str(path[-1] if isinstance(path[-1], str) else path[0])) if path else "$^"
        for number, line in enumerate(self.text.splitlines(), start=1):
            if re.match(rf"\s*\[?\"?{key}\"?\s*[=\]]", line):
                return f"line {number}: "
        return ""

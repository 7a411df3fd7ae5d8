"""Pages that are generated from the code, so that they cannot contradict it.

MkDocs calls :func:`on_config` and :func:`on_files`. ``reference/`` comes from the pydantic classes
that validate the files and from the command line, ``api/`` lists modules for mkdocstrings.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from mkdocs.structure.files import File

from bilayer_orchestra.cli.app import app
from bilayer_orchestra.model.spec import json_schema
from bilayer_orchestra.runtimes.slurm.site import SiteProfile
from bilayer_orchestra.study.spec import Study

ROOT = Path(__file__).parent.parent
DECISIONS = ROOT / "docs" / "decisions"

#: Page of the API reference -> (its title, modules).
API = {
    "public": ("The Python interface", ["api"]),
    "engines": ("Engines", ["engines.base", "engines.registry", "plugins"]),
    "model": (
        "Model and Terms",
        ["model.spec", "model.bilayer", "model.anderson", "terms"],
    ),
    "dataset": (
        "Observables and dataset",
        ["observables", "averages", "dataset.schema", "dataset.reading", "errors"],
    ),
    "running": (
        "Running",
        ["tuning.point", "running.point", "running.directory", "runtimes.base", "job"],
    ),
    "study": ("Studies", ["study.spec", "study.load", "study.run", "study.collect"]),
    "tuning": ("Density targets", ["tuning.search", "tuning.ground", "tuning.thermal"]),
    "check": (
        "Comparison of engines",
        [
            "checking.verdict",
            "checking.comparison",
            "checking.statistics",
            "checking.ladder",
            "checking.identities",
        ],
    ),
    "fits": (
        "Fits",
        [
            "fits.datasets",
            "fits.point",
            "fits.forms",
            "fits.average",
            "fits.scan",
            "fits.solve",
            "fits.weights",
        ],
    ),
    "analysis": (
        "Errors and limits",
        [
            "analysis.limits",
            "analysis.trotter",
            "analysis.truncation",
            "analysis.estimates",
            "analysis.series",
        ],
    ),
}


def on_config(config: Any) -> Any:
    """Add what is listed by nobody: the decisions and the API."""
    decisions = [f"decisions/{path.name}" for path in sorted(DECISIONS.glob("*.md"))]
    figures = ROOT / "docs" / "figures.md"
    if figures.exists():
        config.nav[1]["Use"].append("figures.md")
    config.nav.append({"API": [f"api/{name}.md" for name in API]})
    config.nav.append({"Decisions": decisions})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    for path, content in pages().items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Show what docstrings mark with a role as the code that it is."""
    return re.sub(r":(?:data|func|class|meth|mod|exc):<code>[.~]?", "<code>", html)


def pages() -> dict[str, str]:
    """Return path -> Markdown of every generated page."""
    result = {
        "reference/model.md": model_page(json_schema()),
        "reference/study.md": "# The study file\n\n"
        "One file for many points; [what happens with it](../hpc.md).\n\n"
        + with_parts(Study.model_json_schema()),
        "reference/site.md": "# The site profile\n\n"
        "What `--runtime slurm` knows of a cluster, a TOML file; [how it is used](../hpc.md).\n\n"
        + with_parts(SiteProfile.model_json_schema()),
        "reference/commands.md": commands_page(),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text().replace("](docs/", "]("),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(),
    }
    for name, (title, modules) in API.items():
        blocks = "\n".join(f"::: bilayer_orchestra.{module}\n" for module in modules)
        result[f"api/{name}.md"] = f"# {title}\n\n{blocks}"
    return result


def model_page(schema: dict[str, Any]) -> str:
    """Return the reference of the model file: one section per geometry and per shared part."""
    definitions = schema["$defs"]
    parts = [
        "# The model file",
        "Generated from the classes that validate the file; `orchestra schema` prints the same as "
        "JSON Schema for editors. A value that is not listed is refused, with its line. Single "
        "values change without editing: `--set numerics.alf.dtau=0.05`.",
        "An example:",
        "```yaml\n" + _without_head(ROOT / "examples" / "bilayer.yaml") + "```",
    ]
    kinds = [name for name in definitions if name.endswith("Model")]
    seen: set[str] = set()
    for name in kinds + [name for kind in kinds for name in _below(kind, definitions)]:
        if name not in seen:
            seen.add(name)
            title = f"### {name}"
            if name in kinds:
                title = f"## `model: {definitions[name]['properties']['model']['const']}`"
            parts.append(f"{title} {{ #{name.lower()} }}\n\n" + section(definitions[name]))
            if name == kinds[-1]:
                parts.append("## Parts of a model file")
    return "\n\n".join(parts) + "\n"


def _without_head(path: Path) -> str:
    """Return a file without the comments that introduce it."""
    lines = path.read_text().splitlines(keepends=True)
    return "".join(itertools.dropwhile(lambda line: line.startswith("#"), lines))


def _below(name: str, definitions: dict[str, Any]) -> Iterator[str]:
    """Yield the names that a definition refers to, outermost first."""
    direct = re.findall(r'"#/\$defs/(\w+)"', json.dumps(definitions[name]))
    yield from direct
    for one in direct:
        yield from _below(one, definitions)


def with_parts(schema: dict[str, Any]) -> str:
    """Return the description of a class, then those of the classes within it."""
    parts = [section(schema)]
    for name, one in schema.get("$defs", {}).items():
        if "properties" in one:
            parts.append(f"## {name} {{ #{name.lower()} }}\n\n{section(one)}")
    return "\n\n".join(parts) + "\n"


def section(schema: dict[str, Any]) -> str:
    """Return the description of one class and the table of its keys."""
    required = schema.get("required", [])
    one_of = [name for part in schema.get("anyOf", []) for name in part.get("required", [])]
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, one in schema["properties"].items():
        if key in required:
            default = "**required**"
        elif key in one_of:
            others = ", ".join(f"`{name}`" for name in one_of if name != key)
            default = f"**this or** {others}"
        elif "default" in one and isinstance(one["default"], dict) and one["default"]:
            default = "those of its keys"
        elif one.get("default", None) is None:
            default = ""
        else:
            default = f"`{_text(one['default'])}`"
        rows.append(f"| `{key}` | {kind(one)} | {default} | {_cell(one.get('description', ''))} |")
    text = schema.get("description", "").replace("``", "`")
    return f"{text}\n\n" + "\n".join(rows)


def kind(one: dict[str, Any]) -> str:  # noqa: PLR0911  (one return for each kind of value)
    """Return what a value may be, in words."""
    if "$ref" in one:
        name = one["$ref"].split("/")[-1]
        return f"[{name}](#{name.lower()})"
    if "const" in one:
        return f"`{_text(one['const'])}`"
    if "enum" in one:
        return " or ".join(f"`{_text(value)}`" for value in one["enum"])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in one:
            shown = [kind(part) for part in one[key] if part.get("type") != "null"]
            return " or ".join(dict.fromkeys(shown))
    name = one.get("type", "any")
    if name == "array":
        return f"list of {kind(one.get('items', {}))}"
    if name == "object":
        extra = one.get("additionalProperties")
        return f"map to {kind(extra)}" if isinstance(extra, dict) and extra else "map"
    return f"{ {'string': 'text', 'boolean': 'true or false'}.get(name, name) }{_range(one)}"


def _range(one: dict[str, Any]) -> str:
    low, high = one.get("minimum"), one.get("maximum")
    above, below = one.get("exclusiveMinimum"), one.get("exclusiveMaximum")
    parts = [
        f"{sign} {value:g}"
        for sign, value in (("≥", low), (">", above), ("≤", high), ("<", below))
        if value is not None
    ]
    return f" {', '.join(parts)}" if parts else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _cell(text: str) -> str:
    # `|` ends a cell; of formulas, `*` is no emphasis and `<` no tag
    for sign, shown in (("|", "\\|"), ("*", "\\*"), ("<", "&lt;"), ("\n", " ")):
        text = text.replace(sign, shown)
    return text


def commands_page() -> str:
    """Return every command with its options, from the command line itself."""
    parts = ["# Commands", "The same as `orchestra COMMAND --help`."]
    for path, command in _commands(typer.main.get_command(app), "orchestra"):
        parts.append(f"## {path}\n\n{command.help or ''}")
        rows = ["| option | meaning |", "|---|---|"]
        for one in command.params:
            names = [*one.opts, *one.secondary_opts]
            if "--help" in names:
                continue
            if not names[0].startswith("-"):  # an argument
                names = [one.metavar or names[0].upper()]
            default = one.default if type(one.default) in (int, float, str) else None
            text = _cell(one.help or "") + (f" [`{default}`]" if default not in (None, "") else "")
            rows.append(f"| {', '.join(f'`{name}`' for name in names)} | {text} |")
        if len(rows) > 2:
            parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, one in inner.items():
        yield from _commands(one, f"{path} {name}")

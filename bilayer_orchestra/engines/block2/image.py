"""The image of block2: Python, block2 and scipy, and what of us runs inside."""

from pathlib import Path

from bilayer_orchestra.engines.base import ImageRecipe

#: Modules of an engine's room that belong to the orchestrator.
_OUTSIDE = ("engine.py", "image.py")


class _Recipe(ImageRecipe):
    def own_files(self) -> tuple[Path, list[Path]]:
        package = Path(__file__).resolve().parents[2]
        names = ("__init__.py", "errors.py", "files.py", "terms.py", "engines/__init__.py")
        files = [package / name for name in names]
        for part in ("engine_side", "engines/exact", "engines/block2"):
            files += [file for file in (package / part).glob("*.py") if file.name not in _OUTSIDE]
        return package.parent, sorted(files)


RECIPE = _Recipe("block2", {"python": "/opt/orchestra/bin/python"})

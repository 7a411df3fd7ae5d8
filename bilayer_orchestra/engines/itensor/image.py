"""The image of ITensor: Julia with the packages and OrchestraITensor, compiled."""

from __future__ import annotations

from pathlib import Path

from bilayer_orchestra.engines.itensor.package import engine_files, engine_hash
from bilayer_orchestra.engines.recipe import ImageRecipe


class _Recipe(ImageRecipe):
    def own_files(self) -> tuple[Path, list[Path]]:
        files = engine_files()
        return files[0].parent, sorted(files)

    def replaces_release(self, source: Path) -> bool:
        return (source / "julia").is_dir()

    def arguments(self, source: Path | None, version: str | None) -> dict[str, str]:
        return {"HALF": engine_hash()[:8]}


RECIPE = _Recipe("itensor", {"julia": "/opt/orchestra/bin/julia"}, minutes="15 to 30")

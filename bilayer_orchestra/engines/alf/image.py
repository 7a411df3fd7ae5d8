"""The image of ALF: serial and MPI programs with our Hamiltonian."""

from __future__ import annotations

import re
from pathlib import Path

from bilayer_orchestra.engines.alf.install.installation import (
    VARIABLE,
    hamiltonian_files,
    hamiltonian_hash,
)
from bilayer_orchestra.engines.base import ImageRecipe


class _Recipe(ImageRecipe):
    def own_files(self) -> tuple[Path, list[Path]]:
        files = hamiltonian_files()
        return files[0].parent, files

    def replaces_release(self, source: Path) -> bool:
        return True

    def left_out(self, source: Path) -> tuple[str, ...]:
        from bilayer_orchestra.engines.alf.install.build import PRODUCTS, check_tree

        check_tree(source)
        return (*PRODUCTS, "Documentation")

    def arguments(self, source: Path | None, version: str | None) -> dict[str, str]:
        from bilayer_orchestra.engines.alf.install.build import alf_version, tree_hash

        more = {}
        if source is None:
            text = self.definition().read_text(encoding="utf-8")
            default = re.search(r"^\s*VERSION=(\S+)", text, re.M)
            assert default is not None
            name = f"ALF {version or default[1]}"
        else:
            name = alf_version(source, tree_hash(source))
            release = re.match(r"ALF (\d\S*)", name)
            more["VERSION"] = release[1] if release else "unknown"
        return more | {"ENGINE": f"{name} + Orchestra {hamiltonian_hash()[:8]}"}


RECIPE = _Recipe("alf", launched={VARIABLE: "/opt/orchestra/alf/ALF-MPI.out"})

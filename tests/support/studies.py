"""Studies that many tests share."""

from __future__ import annotations

from pathlib import Path

STUDY = """\
version: 1
name: scan
model:
  model: bilayer
  length: 2
  boundary: open
  layers:
    P: {hopping: 0.0, interaction: -4.0, chemical_potential: 0.0}
    M: {hopping: 1.0, interaction: 0.0, chemical_potential: 0.0}
  t_perp: 0.5
  state: {n_up: 1, n_down: 1}
axes:
  t_perp: [0.5, 0.8]
  U: {path: layers.P.interaction, values: [-2, -4.0]}
zip:
  filling: {state.n_up: [1, 2], state.n_down: [1, 1]}
backends: [exact]
"""
#: Four points of two rungs.
SMALL = STUDY.replace("[-2, -4.0]", "[-4.0]")


def write(tmp_path: Path, text: str = STUDY, name: str = "study.yaml") -> Path:
    """Write a study file; return its path."""
    path = tmp_path / name
    path.write_text(text)
    return path

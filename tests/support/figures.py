"""A study with a figure, and who listens while it runs."""

from __future__ import annotations

#: Two t_perp, each as a ground state and as a thermal state, with a figure.
ENSEMBLES = """\
version: 1
name: small
model:
  model: bilayer
  length: 3
  boundary: open
  layers:
    P: {hopping: 0.0, interaction: -4.0}
    M: {hopping: 1.0}
  t_perp: 0.8
  state: {n_up: 2, n_down: 2}
  observables: [pair, green, density_density]
axes:
  t_perp: [0.5, 1.0]
  ensemble:
    path: state
    values:
      ground: {n_up: 2, n_down: 2}
      beta = 3: {beta: 3.0}
backends: [exact]
figure:
  kind: temperature
  along: ensemble
  panels: t_perp
"""


class Quiet:
    """Listens to a sweep in which nothing may fail."""

    def progress(self, task, line):
        pass

    def ended(self, task, error, reused):
        assert error is None, error

"""ALF's raw bins, text or HDF5, read in chunks.

A segment is one completed start of ALF: a directory with either the files ``X_scal`` and ``X_eq``
or one ``data.h5``. HDF5 is read with netCDF4, which the package needs anyway. Nothing is converted
here: matrices are ``obser[i, j]`` as the Hamiltonian accumulated them, with the sign in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from bilayer_orchestra.engines.alf.output.text_records import (
    HEADER_BYTES,
    LINE_BYTES,
    MOMENTUM_BYTES,
    SCALAR_BYTES,
    ZERO_MOMENTUM,
    line_bytes,
    real_parts,
    single_numbers,
)
from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.files import refuse_locked
from bilayer_orchestra.terms import FloatArray

#: Raw bytes decoded at once; larger chunks fall out of the processor's cache.
CHUNK_BYTES = 2_000_000


class Scalars(NamedTuple):
    """All bins of one scalar: real and imaginary part and sign, each of shape (bins,)."""

    values: FloatArray
    imaginary: FloatArray
    sign: FloatArray


class Matrices(NamedTuple):
    """Some bins of one matrix observable.

    ``values`` has shape (b, N, N), ``background`` (b, N), ``sign`` (b,).
    """

    values: FloatArray
    background: FloatArray
    sign: FloatArray


class Segment:
    """One completed start of ALF.

    Parameters
    ----------
    path : Path
        The directory.
    n_sites : int
        Number of sites that every matrix must have.

    Raises
    ------
    EngineError
        From every method, if a file is missing, cut, or not what ALF writes; the message names
        the file and the bin.
    """

    def __init__(self, path: Path, n_sites: int) -> None:
        self.path, self.n_sites = path, n_sites

    @cached_property
    def bins(self) -> int:
        """Number of bins, the same in every file."""
        counts = {name: self._count(name) for name in self._names()}
        if not counts:
            raise EngineError(f"{self.path} holds no ALF bins (neither X_scal files nor data.h5)")
        if len(set(counts.values())) > 1:
            name = min(counts, key=lambda key: counts[key])
            raise EngineError(
                f"{self._file(name)} holds {counts[name]} bins, other files of this segment up to "
                f"{max(counts.values())}: it is cut or mixed from different runs"
            )
        return next(iter(counts.values()))

    def has(self, name: str) -> bool:
        """Whether the observable ``name`` (such as ``Pair_eq``) was measured."""
        return name in self._names()

    def scalars(self, name: str) -> Scalars:
        """Return all bins of the scalar ``name``, such as ``Kin_scal``."""
        raise NotImplementedError

    def matrices(self, name: str, start: int = 0) -> Iterator[Matrices]:
        """Yield the bins from ``start`` on, in chunks of about :data:`CHUNK_BYTES`."""
        raise NotImplementedError

    def _names(self) -> tuple[str, ...]:
        raise NotImplementedError

    def _count(self, name: str) -> int:
        raise NotImplementedError

    def _file(self, name: str) -> Path:
        return self.path / name


def open_segment(path: Path, n_sites: int) -> Segment:
    """Return the reader that fits what is in ``path``."""
    return HDF5Segment(path, n_sites) if (path / "data.h5").exists() else TextSegment(path, n_sites)


class TextSegment(Segment):
    """A segment in ALF's default text format; see :mod:`.text_records` for the layout."""

    @cached_property
    def _present(self) -> tuple[str, ...]:
        try:
            files = sorted(p.name for p in self.path.iterdir())
        except OSError as error:
            raise EngineError(f"cannot read {self.path}: {error.strerror}") from error
        return tuple(name for name in files if name.endswith(("_scal", "_eq")))

    def _names(self) -> tuple[str, ...]:
        return self._present

    def _record_bytes(self, name: str) -> int:
        return SCALAR_BYTES if name.endswith("_scal") else line_bytes(self.n_sites)

    def _count(self, name: str) -> int:
        record = self._record_bytes(name)
        size = self._file(name).stat().st_size
        if size % record:
            self._diagnose_size(name, size, record)
        return size // record

    def scalars(self, name: str) -> Scalars:
        """Return all bins of the scalar ``name``."""
        count = self._count_present(name)
        raw = self._read(name, 0, count)
        columns = []
        for column in (12, 38, 65):  # re, im, sign
            values, good = single_numbers(raw, column)
            if not good.all() or not (raw[:, -1] == ord("\n")).all():
                self._damaged(name, int(np.argmin(good & (raw[:, -1] == ord("\n")))), 0)
            columns.append(values)
        if not (raw[:, [11, 37, 63]] == np.frombuffer(b"(,)", np.uint8)).all():
            wrong = (raw[:, [11, 37, 63]] != np.frombuffer(b"(,)", np.uint8)).any(axis=1)
            self._damaged(name, int(np.argmax(wrong)), 0)
        return Scalars(*columns)

    def matrices(self, name: str, start: int = 0) -> Iterator[Matrices]:
        """Yield the bins from ``start`` on."""
        count = self._count_present(name)
        step = max(1, CHUNK_BYTES // self._record_bytes(name))
        for first in range(start, count, step):
            yield self._decode(name, first, min(step, count - first))

    def _decode(self, name: str, first: int, count: int) -> Matrices:
        n = self.n_sites
        raw = self._read(name, first, count)
        after_background = HEADER_BYTES + n * LINE_BYTES
        after_momentum = after_background + MOMENTUM_BYTES
        sign, good_sign = single_numbers(raw, 0)
        expected = np.frombuffer(f"{n:>11d}{1:>11d}\n".encode(), np.uint8)
        good_header = good_sign & (raw[:, 25:HEADER_BYTES] == expected).all(axis=1)
        momentum = np.frombuffer(ZERO_MOMENTUM, np.uint8)
        good_header &= (raw[:, after_background:after_momentum] == momentum).all(axis=1)
        background, good_background = real_parts(raw[:, HEADER_BYTES:after_background])
        values, good = real_parts(raw[:, after_momentum:])
        if not (good_header.all() and good_background.all() and good.all()):
            header, middle = ~good_header[:, None], np.zeros((count, 1), bool)
            wrong = np.concatenate([header, ~good_background, middle, ~good], axis=1)
            bin_, line = np.argwhere(wrong)[0]
            self._damaged(name, first + int(bin_), int(line))
        return Matrices(values.reshape(count, n, n), background, sign)

    def _count_present(self, name: str) -> int:
        if name not in self._present:
            raise EngineError(f"{self._file(name)} is missing: {name} was not measured")
        return self.bins

    def _read(self, name: str, first: int, count: int) -> Any:
        record = self._record_bytes(name)
        raw = np.fromfile(self._file(name), np.uint8, count * record, offset=first * record)
        if raw.size != count * record:
            raise EngineError(f"{self._file(name)} ends before bin {first + count}")
        return raw.reshape(count, record)

    def _diagnose_size(self, name: str, size: int, record: int) -> NoReturn:
        """Say whether the file belongs to another lattice or is cut."""
        if name.endswith("_eq"):
            with self._file(name).open("rb") as stream:
                header = re.match(rb" *\S+ +(\d+) +\d+\n", stream.readline(200))
            if header and int(header[1]) != self.n_sites:
                raise EngineError(
                    f"{self._file(name)} holds matrices of {int(header[1])} sites, "
                    f"the model has {self.n_sites}"
                )
        raise EngineError(
            f"{self._file(name)}: bin {size // record + 1} is incomplete "
            f"({size % record} of {record} bytes); the file is cut or damaged"
        )

    def _damaged(self, name: str, bin_: int, line: int) -> NoReturn:
        """Quote the line that could not be decoded."""
        text = self._read(name, bin_, 1).tobytes().decode("ascii", "replace").split("\n")[:-1]
        shown = text[min(line, len(text) - 1)] if text else ""
        what = "is not a finite number" if re.search("nan|inf", shown, re.I) else "is damaged"
        raise EngineError(
            f"{self._file(name)}: bin {bin_ + 1}, line {line + 1} of the bin {what}: {shown[:70]!r}"
        )


class HDF5Segment(Segment):
    """A segment written by an ALF built with HDF5: ``X_eq/obser[bin, j, i, 1, 1, re/im]``."""

    @contextmanager
    def _open(self) -> Iterator[Any]:
        """Open the file for one use: a long run has more segments than a process may hold open."""
        import netCDF4

        try:
            data = netCDF4.Dataset(self.path / "data.h5")
        except (OSError, RuntimeError, ValueError, LookupError) as error:
            refuse_locked(self.path / "data.h5")
            raise EngineError(f"{self.path / 'data.h5'} is damaged or cut: {error}") from error
        try:
            data.set_auto_maskandscale(False)
            yield data
        finally:
            data.close()

    @cached_property
    def _shapes(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Group -> dataset -> shape."""
        with self._open() as data:
            return {
                name: {key: variable.shape for key, variable in group.variables.items()}
                for name, group in data.groups.items()
                if name.endswith(("_scal", "_eq"))
            }

    def _names(self) -> tuple[str, ...]:
        return tuple(self._shapes)

    def _file(self, name: str) -> Path:
        return self.path / "data.h5" / name

    def _count(self, name: str) -> int:
        shapes = self._shapes[name]
        n = self.n_sites
        inner: dict[str, tuple[int, ...]] = {"obser": (1, 2), "sign": ()}
        if name.endswith("_eq"):
            inner = {"obser": (n, n, 1, 1, 2), "back": (n, 2), "sign": ()}
        if {key: shape[1:] for key, shape in shapes.items()} != inner:
            raise EngineError(f"{self._file(name)} has shapes {shapes}, the model has {n} sites")
        counts = {shape[0] for shape in shapes.values()}
        if len(counts) > 1:
            raise EngineError(f"{self._file(name)} is cut: its parts hold {sorted(counts)} bins")
        return int(counts.pop())

    def _variables(self, data: Any, name: str) -> Any:
        if name not in self._shapes:
            raise EngineError(f"{self._file(name)} is missing: {name} was not measured")
        variables = data.groups[name].variables
        for variable in variables.values():
            variable.set_var_chunk_cache(0, 1, 0.0)  # every chunk is read once
        return variables

    def _part(self, variables: Any, name: str, key: str, first: int, last: int) -> FloatArray:
        try:
            array = np.asarray(variables[key][first:last], dtype=float)
        except (OSError, RuntimeError, ValueError, LookupError) as error:
            raise EngineError(
                f"{self._file(name)}: bins {first + 1} to {last} are damaged: {error}"
            ) from error
        if not np.isfinite(array).all():
            bad = np.argwhere(~np.isfinite(array))[0]
            raise EngineError(
                f"{self._file(name)}: bin {first + int(bad[0]) + 1} is not a finite number "
                f"({key}, element {tuple(int(k) for k in bad[1:])})"
            )
        return array

    def scalars(self, name: str) -> Scalars:
        """Return all bins of the scalar ``name``."""
        with self._open() as data:
            variables = self._variables(data, name)
            value = self._part(variables, name, "obser", 0, self.bins)[:, 0]
            sign = self._part(variables, name, "sign", 0, self.bins)
        return Scalars(value[:, 0], value[:, 1], sign)

    def matrices(self, name: str, start: int = 0) -> Iterator[Matrices]:
        """Yield the bins from ``start`` on."""
        step = max(1, CHUNK_BYTES // (16 * self.n_sites**2))
        with self._open() as data:
            variables = self._variables(data, name)
            for first in range(start, self.bins, step):
                last = min(first + step, self.bins)
                value = self._part(variables, name, "obser", first, last)[:, :, :, 0, 0, 0]
                yield Matrices(
                    value.transpose(0, 2, 1),  # HDF5 holds Fortran's order, (j, i)
                    self._part(variables, name, "back", first, last)[..., 0],
                    self._part(variables, name, "sign", first, last),
                )

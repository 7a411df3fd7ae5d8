"""ALF's raw bins, text or HDF5, read in chunks.

A segment is one completed start of ALF: a directory with either the files ``X_scal`` and ``X_eq``
or one ``data.h5``. HDF5 is read with netCDF4, which the package needs anyway. Nothing is converted
here: matrices are ``obser[i, j]`` as the Hamiltonian accumulated them, with the sign in them.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
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


class Segment(ABC):
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
    @abstractmethod
    def _counts(self) -> dict[str, int]:
        """Bins of every observable that was measured."""

    @abstractmethod
    def _file(self, name: str) -> Path:
        """Where the observable is, for messages."""

    @abstractmethod
    def scalars(self, name: str) -> Scalars:
        """Return all bins of the scalar ``name``, such as ``Kin_scal``."""

    @abstractmethod
    def matrices(self, name: str) -> Iterator[Matrices]:
        """Yield all bins in chunks of about :data:`CHUNK_BYTES`."""

    @cached_property
    def bins(self) -> int:
        """Number of bins, the same in every file."""
        counts = self._counts
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
        return name in self._counts

    def _require(self, name: str) -> None:
        if not self.has(name):
            raise EngineError(f"{self._file(name)} is missing: {name} was not measured")

    def _pieces(self, bin_bytes: int) -> Iterator[tuple[int, int]]:
        """Yield (first bin, end) of all chunks."""
        step = max(1, CHUNK_BYTES // bin_bytes)
        for first in range(0, self.bins, step):
            yield first, min(first + step, self.bins)


def open_segment(path: Path, n_sites: int) -> Segment:
    """Return the reader that fits what is in ``path``."""
    return HDF5Segment(path, n_sites) if (path / "data.h5").exists() else TextSegment(path, n_sites)


class TextSegment(Segment):
    """A segment in ALF's default text format; see :mod:`.text_records` for the layout."""

    @cached_property
    def _counts(self) -> dict[str, int]:
        try:
            names = sorted(path.name for path in self.path.iterdir())
        except OSError as error:
            raise EngineError(f"cannot read {self.path}: {error.strerror}") from error
        return {name: self._count(name) for name in names if name.endswith(("_scal", "_eq"))}

    def _file(self, name: str) -> Path:
        return self.path / name

    def _record_bytes(self, name: str) -> int:
        return SCALAR_BYTES if name.endswith("_scal") else line_bytes(self.n_sites)

    def _count(self, name: str) -> int:
        record, size = self._record_bytes(name), self._file(name).stat().st_size
        if size % record == 0:
            return size // record
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

    def scalars(self, name: str) -> Scalars:
        """Return all bins of the scalar ``name``."""
        self._require(name)
        raw = self._read(name, 0, self.bins)
        good = (raw[:, [11, 37, 63, 90]] == np.frombuffer(b"(,)\n", np.uint8)).all(axis=1)
        columns = []
        for column in (12, 38, 65):  # re, im, sign
            values, fine = single_numbers(raw, column)
            columns.append(values)
            good &= fine
        if not good.all():
            self._damaged(name, int(np.argmin(good)), 0)
        return Scalars(*columns)

    def matrices(self, name: str) -> Iterator[Matrices]:
        """Yield all bins."""
        self._require(name)
        for first, end in self._pieces(self._record_bytes(name)):
            yield self._decode(name, first, end)

    def _decode(self, name: str, first: int, end: int) -> Matrices:
        n, raw = self.n_sites, self._read(name, first, end)
        after_background = HEADER_BYTES + n * LINE_BYTES
        after_momentum = after_background + MOMENTUM_BYTES
        sign, good_sign = single_numbers(raw, 0)
        expected = np.frombuffer(f"{n:>11d}{1:>11d}\n".encode() + ZERO_MOMENTUM, np.uint8)
        fixed = np.r_[25:HEADER_BYTES, after_background:after_momentum]
        good_header = good_sign & (raw[:, fixed] == expected).all(axis=1)
        background, good_background = real_parts(raw[:, HEADER_BYTES:after_background])
        values, good = real_parts(raw[:, after_momentum:])
        if not (good_header.all() and good_background.all() and good.all()):
            momentum = np.ones((end - first, 1), bool)  # is told with the header
            lines = np.concatenate([good_header[:, None], good_background, momentum, good], axis=1)
            bin_, line = np.argwhere(~lines)[0]
            self._damaged(name, first + int(bin_), int(line))
        return Matrices(values.reshape(-1, n, n), background, sign)

    def _read(self, name: str, first: int, end: int) -> Any:
        record, count = self._record_bytes(name), end - first
        raw = np.fromfile(self._file(name), np.uint8, count * record, offset=first * record)
        if raw.size != count * record:
            raise EngineError(f"{self._file(name)} ends before bin {end}")
        return raw.reshape(count, record)

    def _damaged(self, name: str, bin_: int, line: int) -> NoReturn:
        """Quote the line that could not be decoded."""
        text = self._read(name, bin_, bin_ + 1).tobytes().decode("ascii", "replace").split("\n")
        shown = text[min(line, len(text) - 2)]
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
    def _counts(self) -> dict[str, int]:
        with self._open() as data:
            return {
                name: self._count(name, {key: one.shape for key, one in group.variables.items()})
                for name, group in data.groups.items()
                if name.endswith(("_scal", "_eq"))
            }

    def _file(self, name: str) -> Path:
        return self.path / "data.h5" / name

    def _count(self, name: str, shapes: dict[str, tuple[int, ...]]) -> int:
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

    @contextmanager
    def _parts(self, name: str) -> Iterator[Callable[[str, int, int], FloatArray]]:
        """Give a function that reads (part, first bin, end)."""
        self._require(name)
        with self._open() as data:
            variables = data.groups[name].variables
            for variable in variables.values():
                variable.set_var_chunk_cache(0, 1, 0.0)  # every chunk is read once

            def part(key: str, first: int, end: int) -> FloatArray:
                try:
                    array = np.asarray(variables[key][first:end], dtype=float)
                except (OSError, RuntimeError, ValueError, LookupError) as error:
                    raise EngineError(
                        f"{self._file(name)}: bins {first + 1} to {end} are damaged: {error}"
                    ) from error
                if not np.isfinite(array).all():
                    bad = np.argwhere(~np.isfinite(array))[0]
                    raise EngineError(
                        f"{self._file(name)}: bin {first + int(bad[0]) + 1} is not a finite number "
                        f"({key}, element {tuple(int(k) for k in bad[1:])})"
                    )
                return array

            yield part

    def scalars(self, name: str) -> Scalars:
        """Return all bins of the scalar ``name``."""
        with self._parts(name) as part:
            value = part("obser", 0, self.bins)[:, 0]
            return Scalars(value[:, 0], value[:, 1], part("sign", 0, self.bins))

    def matrices(self, name: str) -> Iterator[Matrices]:
        """Yield all bins."""
        with self._parts(name) as part:
            for first, end in self._pieces(16 * self.n_sites**2):
                yield Matrices(
                    # HDF5 holds Fortran's order, (j, i)
                    part("obser", first, end)[:, :, :, 0, 0, 0].transpose(0, 2, 1),
                    part("back", first, end)[..., 0],
                    part("sign", first, end),
                )

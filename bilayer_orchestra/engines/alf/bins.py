"""ALF's raw bins, text or HDF5, read in chunks.

A segment is one completed start of ALF: a directory with either the files ``X_scal`` and ``X_eq``
or one ``data.h5``. HDF5 is read with netCDF4, which the package needs anyway. Nothing is converted
here: matrices are ``obser[i, j]`` as the Hamiltonian accumulated them, with the sign in them.

Every line of text has a fixed width, so a file is an array of records and a number is a fixed group
of bytes; whole columns of digits become numbers at once, several times faster than by a general
parser. Each byte of a number and of the punctuation around it is checked: a damaged file is never
a wrong number. Layout, for N sites (checked against ALF 2.6 with the Orchestra Hamiltonian)::

    X_scal   "<count, 10 columns> (re,im) sign"                           one line per bin
    X_eq     "sign N 1", N background lines, "0.0 0.0" (the momentum), N*N lines, i outer, j inner
    line     "( 0.12345678901234567E+001, 0.00000000000000000E+000)"      54 bytes with newline
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.files import refuse_locked
from bilayer_orchestra.terms import FloatArray

Bytes = NDArray[np.uint8]
Good = NDArray[np.bool_]

#: Raw bytes decoded at once; larger chunks fall out of the processor's cache.
CHUNK_BYTES = 2_000_000
#: Bytes of a line of ``X_scal``, and of the lines of ``X_eq``.
SCALAR_BYTES = 91
HEADER_BYTES = 48
LINE_BYTES = 54
MOMENTUM_BYTES = 52
#: The momentum line of a lattice with one unit cell.
ZERO_MOMENTUM = b" 0.00000000000000000E+000  0.00000000000000000E+000\n"

#: The smallest bytes of a complex line, and by how much each may exceed them: a digit by nine; a
#: blank may be a minus (13 further on), and so may the plus of an exponent (2).
_SMALLEST = np.frombuffer(b"( 0.00000000000000000E+000, 0.00000000000000000E+000)\n", np.uint8)
_LARGEST = np.frombuffer(b"(-0.99999999999999999E-999,-0.99999999999999999E-999)\n", np.uint8)
_EXCESS = _LARGEST - _SMALLEST
_SIGNS = (1, 22, 27, 48)
#: Places of the real part: signs of the number and of its exponent, and the digits of both.
_SIGN, _EXPONENT_SIGN, _MANTISSA, _EXPONENT = 1, 22, slice(4, 21), slice(23, 26)

#: Weights of the digits of a mantissa, which is an integer here, and of an exponent.
_MANTISSA_WEIGHTS = 10 ** np.arange(16, -1, -1)
_EXPONENT_WEIGHTS = np.array([100, 10, 1])
#: 10^(17 - e) for an exponent e = -999 ... 308 at index e + 999; infinity means an exact zero.
with np.errstate(over="ignore"):
    _DIVISOR = np.power(10.0, 17.0 - np.arange(-999.0, 309.0))


class Bins(NamedTuple):
    """Some bins b of one observable.

    ``values`` has shape (b,) for a scalar and (b, N, N) for a matrix; ``beside`` is the imaginary
    part (b,) of a scalar and the background (b, N) of a matrix; ``sign`` has shape (b,).
    """

    values: FloatArray
    beside: FloatArray
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

    #: Name of the file that holds all observables; none if each has its own.
    container: ClassVar[str] = ""

    def __init__(self, path: Path, n_sites: int) -> None:
        self.path, self.n_sites = path, n_sites

    @cached_property
    @abstractmethod
    def _counts(self) -> dict[str, int]:
        """Bins of every observable that was measured."""

    @abstractmethod
    def _chunks(self, name: str, size: int) -> Iterator[Bins]:
        """Yield all bins of an observable that is there, ``size`` at once."""

    @cached_property
    def bins(self) -> int:
        """Number of bins, the same in every file."""
        counts = self._counts
        if not any(counts.values()):
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

    def chunks(self, name: str) -> Iterator[Bins]:
        """Yield all bins of the observable ``name`` in chunks of about :data:`CHUNK_BYTES`."""
        if not self.has(name):
            raise EngineError(f"{self._file(name)} is missing: {name} was not measured")
        return self._chunks(name, max(1, CHUNK_BYTES // self._record_bytes(name)))

    def _file(self, name: str) -> Path:
        """Where the observable is, for messages."""
        return self.path / self.container / name

    def _record_bytes(self, name: str) -> int:
        """Bytes of one bin in text."""
        if name.endswith("_scal"):
            return SCALAR_BYTES
        return HEADER_BYTES + MOMENTUM_BYTES + LINE_BYTES * (self.n_sites + self.n_sites**2)


def open_segment(path: Path, n_sites: int) -> Segment:
    """Return the reader that fits what is in ``path``."""
    return HDF5Segment(path, n_sites) if (path / "data.h5").exists() else TextSegment(path, n_sites)


class TextSegment(Segment):
    """A segment in ALF's default text format."""

    @cached_property
    def _counts(self) -> dict[str, int]:
        try:
            names = sorted(path.name for path in self.path.iterdir())
        except OSError as error:
            raise EngineError(f"cannot read {self.path}: {error.strerror}") from error
        return {name: self._count(name) for name in names if name.endswith(("_scal", "_eq"))}

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

    def _chunks(self, name: str, size: int) -> Iterator[Bins]:
        decode = decode_scalars if name.endswith("_scal") else self._decode_matrices
        record = self._record_bytes(name)
        for first in range(0, self.bins, size):
            count = min(size, self.bins - first)
            raw = np.fromfile(self._file(name), np.uint8, count * record, offset=first * record)
            if raw.size != count * record:
                raise EngineError(f"{self._file(name)} ends before bin {first + count}")
            raw = raw.reshape(count, record)
            bins, good = decode(raw)
            if not good.all():
                self._damaged(name, raw, good, first)
            yield bins

    def _decode_matrices(self, raw: Bytes) -> tuple[Bins, Good]:
        """Return the bins of whole records, and whether header and lines have the fixed form.

        The line of the momentum counts as a part of the header.
        """
        n = self.n_sites
        momentum = HEADER_BYTES + n * LINE_BYTES
        after = momentum + MOMENTUM_BYTES
        sign, good_sign = numbers(raw, 0)
        expected = np.frombuffer(f"{n:>11d}{1:>11d}\n".encode() + ZERO_MOMENTUM, np.uint8)
        fixed = raw[:, np.r_[25:HEADER_BYTES, momentum:after]] == expected
        good_header = good_sign & fixed.all(axis=1, keepdims=True)
        lines = np.concatenate([raw[:, HEADER_BYTES:momentum], raw[:, after:]], axis=1)
        values, good = real_parts(lines)
        bins = Bins(values[:, n:].reshape(-1, n, n), values[:, :n], sign[:, 0])
        return bins, np.concatenate([good_header, good], axis=1)

    def _damaged(self, name: str, raw: Bytes, good: Good, first: int) -> NoReturn:
        """Quote the first line that could not be decoded."""
        bin_, line = (int(k) for k in np.argwhere(~good)[0])
        line += line > self.n_sites  # the momentum stands between
        text = raw[bin_].tobytes().decode("ascii", "replace").split("\n")
        shown = text[min(line, len(text) - 2)]
        what = "is not a finite number" if re.search("nan|inf", shown, re.I) else "is damaged"
        raise EngineError(
            f"{self._file(name)}: bin {first + bin_ + 1}, line {line + 1} of the bin {what}: "
            f"{shown[:70]!r}"
        )


def decode_scalars(raw: Bytes) -> tuple[Bins, Good]:
    """Return the bins of lines of ``X_scal``, and which have the fixed form, shape (b, 1)."""
    columns, good = numbers(raw, 12, 38, 65)
    fixed = raw[:, [11, 37, 63, 90]] == np.frombuffer(b"(,)\n", np.uint8)
    return Bins(*columns.T), (good & fixed.all(axis=1, keepdims=True)).all(axis=1, keepdims=True)


def real_parts(raw: Bytes) -> tuple[FloatArray, Good]:
    """Decode the real parts of complex lines; the imaginary parts are only checked for their form.

    Parameters
    ----------
    raw : array of bytes, shape (..., 54 n)
        Whole lines.

    Returns
    -------
    values : array, shape (..., n)
        Accurate to one unit in the last place.
    good : array of bool, shape (..., n)
        False where a line does not have the fixed form (such as NaN or a damaged byte).
    """
    excess = raw.reshape(*raw.shape[:-1], -1, LINE_BYTES) - _SMALLEST
    good = (excess <= _EXCESS).all(axis=-1)
    for place in _SIGNS:
        good &= (excess[..., place] == 0) | (excess[..., place] == _EXCESS[place])
    power = np.einsum("...k,k", excess[..., _EXPONENT], _EXPONENT_WEIGHTS)
    np.negative(power, out=power, where=excess[..., _EXPONENT_SIGN] > 0)
    good &= power <= 308
    values = np.einsum("...k,k", excess[..., _MANTISSA], _MANTISSA_WEIGHTS).astype(float)
    values /= _DIVISOR[np.clip(power + 999, 0, len(_DIVISOR) - 1)]
    np.negative(values, out=values, where=excess[..., _SIGN] > 0)
    return values, good


def numbers(raw: Bytes, *columns: int) -> tuple[FloatArray, Good]:
    """Decode the numbers (25 bytes, sign first) that begin at ``columns`` of records (n, length).

    Returns values and whether they have the fixed form, shape (n, columns).
    """
    lines = np.tile(_SMALLEST, (len(raw), len(columns), 1))
    for k, column in enumerate(columns):
        lines[:, k, 1:26] = raw[:, column : column + 25]
    return real_parts(lines.reshape(len(raw), -1))


class HDF5Segment(Segment):
    """A segment written by an ALF built with HDF5: ``X_eq/obser[bin, j, i, 1, 1, re/im]``."""

    container = "data.h5"

    @contextmanager
    def _open(self) -> Iterator[Any]:
        """Open the file for one use: a long run has more segments than a process may hold open."""
        import netCDF4

        try:
            with netCDF4.Dataset(self._file("")) as data:
                data.set_auto_maskandscale(False)
                yield data
        except (OSError, RuntimeError, ValueError, LookupError) as error:
            refuse_locked(self._file(""))
            raise EngineError(f"{self._file('')} is damaged or cut: {error}") from error

    @cached_property
    def _counts(self) -> dict[str, int]:
        with self._open() as data:
            return {
                name: len(group["sign"])
                for name, group in data.groups.items()
                if name.endswith(("_scal", "_eq"))
            }

    def _chunks(self, name: str, size: int) -> Iterator[Bins]:
        with self._open() as data:
            n, bins, variables = self.n_sites, self.bins, data.groups[name].variables
            wanted = {"obser": (bins, 1, 2), "sign": (bins,)}
            if name.endswith("_eq"):
                wanted = {"obser": (bins, n, n, 1, 1, 2), "back": (bins, n, 2), "sign": (bins,)}
            shapes = {key: one.shape for key, one in variables.items()}
            if shapes != wanted:
                raise EngineError(
                    f"{self._file(name)} is cut or from another run: it has shapes {shapes}, "
                    f"the model has {n} sites"
                )
            for variable in variables.values():
                variable.set_var_chunk_cache(0, 1, 0.0)  # every chunk is read once
            for first in range(0, bins, size):
                rows = slice(first, first + size)
                part = {key: np.asarray(one[rows], float) for key, one in variables.items()}
                for array in part.values():
                    if not np.isfinite(array).all():
                        bad = first + int(np.argwhere(~np.isfinite(array))[0][0]) + 1
                        raise EngineError(f"{self._file(name)}: bin {bad} is not a finite number")
                value, sign = part["obser"], part["sign"]
                if name.endswith("_scal"):
                    yield Bins(value[:, 0, 0], value[:, 0, 1], sign)
                else:  # HDF5 holds Fortran's order, (j, i)
                    matrices = value[..., 0, 0, 0].transpose(0, 2, 1)
                    yield Bins(matrices, part["back"][..., 0], sign)

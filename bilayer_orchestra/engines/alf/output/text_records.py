"""ALF's text records, decoded in bulk.

Every line has a fixed width, so a file is an array of records and a number is a fixed group of
bytes; whole columns of digits become numbers at once, several times faster than by a general
parser. Each byte of a number and of the punctuation around it is checked: a damaged file is never
a wrong number.

Layout, for N sites (checked against ALF 2.6 with the Orchestra Hamiltonian)::

    X_scal   "<count, 10 columns> (re,im) sign"                           one line per bin
    X_eq     "sign N 1", N background lines, "0.0 0.0" (the momentum), N*N lines, i outer, j inner
    line     "( 0.12345678901234567E+001, 0.00000000000000000E+000)"      54 bytes with newline
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bilayer_orchestra.terms import FloatArray

Bytes = NDArray[np.uint8]
Good = NDArray[np.bool_]

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
_EXCESS = np.zeros(LINE_BYTES, np.uint8)
for _first in (0, 26):  # the byte before the real part, and before the imaginary part
    _EXCESS[_first + 1], _EXCESS[_first + 22] = 13, 2
    _EXCESS[_first + 4 : _first + 21] = _EXCESS[_first + 23 : _first + 26] = 9
_SIGNS = (1, 22, 27, 48)
#: Places of the real part: signs of the number and of its exponent, and the digits of both.
_SIGN, _EXPONENT_SIGN, _MANTISSA, _EXPONENT = 1, 22, slice(4, 21), slice(23, 26)

#: Weights of the digits of a mantissa, which is an integer here, and of an exponent.
_MANTISSA_WEIGHTS = 10 ** np.arange(16, -1, -1)
_EXPONENT_WEIGHTS = np.array([100, 10, 1])
#: 10^(17 - e) for an exponent e = -999 ... 308 at index e + 999; infinity means an exact zero.
with np.errstate(over="ignore"):
    _DIVISOR = np.power(10.0, 17.0 - np.arange(-999.0, 309.0))


def line_bytes(n_sites: int) -> int:
    """Bytes of one bin of an ``X_eq`` file."""
    return HEADER_BYTES + LINE_BYTES * n_sites + MOMENTUM_BYTES + LINE_BYTES * n_sites**2


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


def single_numbers(raw: Bytes, column: int) -> tuple[FloatArray, Good]:
    """Decode one number per record: the 25 bytes (sign first) from ``column`` on.

    Parameters
    ----------
    raw : array of bytes, shape (n, record length)
    """
    lines = np.tile(_SMALLEST, (len(raw), 1))
    lines[:, 1:26] = raw[:, column : column + 25]
    values, good = real_parts(lines)
    return values[:, 0], good[:, 0]

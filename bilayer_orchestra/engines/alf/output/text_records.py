"""ALF's text records, decoded in bulk.

Every line has a fixed width, so a file is an array of records and a number is a fixed group of
bytes. Seventeen digits become an integer with a few 64-bit operations on all lines at once
(the eight-digits-in-a-word trick, D. Lemire, arXiv:2101.11408), several times faster than a
general parser. Each byte of a number and of the punctuation around it is checked: a damaged file
is never a wrong number.

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

SCALAR_BYTES, HEADER_BYTES, LINE_BYTES, MOMENTUM_BYTES = 91, 48, 54, 52

#: A complex line: "( 0." or "(-0.", 16 digits, then the last digit, "E+001," and the sign of the
#: imaginary part, its other bytes, ")" and the newline.
_LINE = np.dtype(
    {
        "names": ["head", "high", "low", "tail", "im0", "im1", "im2", "end"],
        "formats": ["<u4", "<u8", "<u8", "<u8", "<u8", "<u8", "<u8", "<u2"],
        "offsets": [0, 4, 12, 20, 28, 36, 44, 52],
        "itemsize": LINE_BYTES,
    }
)


def _word(text: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(text, "little"))


#: 10^(17 - e) for an exponent e = -999 ... 308 at index e + 999; infinity means an exact zero.
with np.errstate(over="ignore"):
    _DIVISOR = np.power(10.0, 17.0 - np.arange(-999.0, 309.0))

_HEAD_MASK, _HEAD = np.uint32(0xFFFF00FF), np.uint32(int.from_bytes(b"(\0000.", "little"))
_END = np.uint16(int.from_bytes(b")\n", "little"))
_HIGH_NIBBLES, _ZEROS = np.uint64(0xF0F0F0F0F0F0F0F0), _word(b"00000000")
_SIXES = np.uint64(0x0606060606060606)
# tail = digit "E" sign digit digit digit "," sign; 1 where a digit is expected
_TAIL_FIXED_MASK, _TAIL_FIXED = _word(b"\0\xff\0\0\0\0\xff\0"), _word(b"\0E\0\0\0\0,\0")
_TAIL_DIGITS = _word(b"\xf0\0\0\xf0\xf0\xf0\0\0")
_TAIL_SIXES = _word(b"\6\0\0\6\6\6\0\0")
_TAIL_ZEROS = _word(b"0\0\0" + b"000" + b"\0\0")
_TEMPLATE = b"( 0.00000000000000000E+000, 0.00000000000000000E+000)\n"
#: The momentum line of a lattice with one unit cell.
ZERO_MOMENTUM = b" 0.00000000000000000E+000  0.00000000000000000E+000\n"
_IMAGINARY = [_word(_TEMPLATE[k : k + 8]) for k in (28, 36, 44)]


def line_bytes(n_sites: int) -> int:
    """Bytes of one bin of an ``X_eq`` file."""
    return HEADER_BYTES + LINE_BYTES * n_sites + MOMENTUM_BYTES + LINE_BYTES * n_sites**2


def real_parts(raw: Bytes) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Decode the real parts of complex lines; the imaginary parts are only checked for their form.

    Parameters
    ----------
    raw : array of bytes, shape (..., 54 n)
        Whole lines; the last axis contiguous.

    Returns
    -------
    values : array, shape (..., n)
        Accurate to one unit in the last place.
    good : array of bool, shape (..., n)
        False where a line does not have the fixed form (such as NaN or a damaged byte).
    """
    lines = raw.view(_LINE)
    head, high, low = lines["head"].copy(), lines["high"].copy(), lines["low"].copy()
    tail, end = lines["tail"].copy(), lines["end"].copy()
    sign = (head >> np.uint32(8)) & np.uint32(0xFF)
    good = ((head & _HEAD_MASK) == _HEAD) & (end == _END)
    good &= (sign == ord(" ")) | (sign == ord("-"))
    good &= _all_digits(high) & _all_digits(low)
    good &= (tail & _TAIL_FIXED_MASK) == _TAIL_FIXED
    good &= (tail & _TAIL_DIGITS) == _TAIL_ZEROS
    good &= ((tail + _TAIL_SIXES) & _TAIL_DIGITS) == _TAIL_ZEROS
    zero = lines["im0"] == _IMAGINARY[0]
    zero &= (tail >> np.uint64(56)) == ord(" ")
    zero &= (lines["im1"] == _IMAGINARY[1]) & (lines["im2"] == _IMAGINARY[2])
    if not zero.all():
        good[~zero] &= _good_imaginary(lines[~zero])
    exponent_sign = (tail >> np.uint64(16)) & np.uint64(0xFF)
    good &= (exponent_sign == ord("+")) | (exponent_sign == ord("-"))
    mantissa = _eight_digits(high) * np.uint64(10**9) + _eight_digits(low) * np.uint64(10)
    mantissa += tail & np.uint64(0xF)
    exponent = (tail >> np.uint64(24)) & np.uint64(0xF)
    exponent *= np.uint64(100)
    exponent += ((tail >> np.uint64(32)) & np.uint64(0xF)) * np.uint64(10)
    exponent += (tail >> np.uint64(40)) & np.uint64(0xF)
    power = exponent.astype(int)
    np.negative(power, out=power, where=exponent_sign == ord("-"))
    good &= power <= 308
    values = mantissa.astype(float)
    values /= _DIVISOR[np.clip(power + 999, 0, len(_DIVISOR) - 1)]
    np.negative(values, out=values, where=sign == ord("-"))
    return values, good


def single_numbers(raw: Bytes, column: int) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Decode one number per record: the 25 bytes (sign first) from ``column`` on.

    Parameters
    ----------
    raw : array of bytes, shape (n, record length)
    """
    lines = np.tile(np.frombuffer(_TEMPLATE, np.uint8), (len(raw), 1))
    lines[:, 1:26] = raw[:, column : column + 25]
    values, good = real_parts(lines)
    return values[:, 0], good[:, 0]


def _good_imaginary(lines: NDArray[np.void]) -> NDArray[np.bool_]:
    """Whether the imaginary parts of a few lines are numbers too."""
    raw = np.ascontiguousarray(lines).view(np.uint8).reshape(len(lines), LINE_BYTES)
    return single_numbers(raw, 27)[1]


def _all_digits(word: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether all eight bytes are ASCII digits: high nibble 3, also after adding 6."""
    good = (word & _HIGH_NIBBLES) == _ZEROS
    good &= ((word + _SIXES) & _HIGH_NIBBLES) == _ZEROS
    return np.asarray(good)


def _eight_digits(word: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the number that eight ASCII digits spell: pairs, then fours, then eight."""
    word = word & np.uint64(0x0F0F0F0F0F0F0F0F)
    word *= np.uint64(2561)  # 10 * low digit + high digit, in every second byte
    word >>= np.uint64(8)
    word &= np.uint64(0x00FF00FF00FF00FF)
    word *= np.uint64(6553601)  # 100 * low + high
    word >>= np.uint64(16)
    word &= np.uint64(0x0000FFFF0000FFFF)
    word *= np.uint64(42949672960001)  # 10000 * low + high
    word >>= np.uint64(32)
    return word

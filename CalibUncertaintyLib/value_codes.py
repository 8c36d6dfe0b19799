"""Values from 0 up as whole numbers that keep their order: the bins of histograms that lose nothing but digits.

The leading bits of a float32 (exponent and 10 binary digits) are a number that grows with the value, and cutting the rest off
rounds down. So a histogram over codes has a relative resolution of 2^-10 everywhere between 2^-24 and 2^8, and every threshold on
its grid (`values_of`) splits values exactly as it would split the codes: u >= t where code(u) >= code(t). Our definition.
"""

import numpy as np

_CUT = 13  # of 23 binary digits
_LOWEST = (127 - 24) << (23 - _CUT)  # 2^-24, below which everything is 0
_HIGHEST = (127 + 8) << (23 - _CUT)  # 2^8, the last code, for everything from there on
COUNT = _HIGHEST - _LOWEST + 2
"""How many codes there are: 0 .. COUNT - 1."""


def codes_of(values: np.ndarray) -> np.ndarray:
    """Code of each value, int32 of the same shape; 0 for what is below 2^-24 (or negative), COUNT - 1 from 2^8 on.

    NaN has no place among them: it becomes COUNT - 1; refuse it before.
    """
    shape = np.shape(values)
    values = np.ascontiguousarray(np.maximum(values, 0), dtype=np.float32)
    codes = (values.view(np.uint32) >> np.uint32(_CUT)).astype(np.int32)
    codes -= _LOWEST - 1
    return np.clip(codes, 0, COUNT - 1, out=codes).reshape(shape)


def values_of(codes: np.ndarray) -> np.ndarray:
    """The least value of each code, float32: `codes_of(values_of(c)) == c` for every code."""
    codes = np.asarray(codes, dtype=np.int64)
    bits = ((codes + (_LOWEST - 1)).astype(np.uint32) << np.uint32(_CUT)).astype(np.uint32)
    return np.where(codes <= 0, np.float32(0), bits.view(np.float32))

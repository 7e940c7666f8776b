"""Calls that are like an earlier one: what to do is found by the arguments as they came.

To check and normalise arguments takes longer than to convolve a small array.  A call is like an earlier one if its
arrays have the same shapes, strides and dtypes, and every other argument is equal and of the same type.
"""

from numpy import may_share_memory, ndarray

cdef enum:
    MOST = 64  # calls to remember: as many as there are plans in the caches of `cytconv._correlation` and its like

cdef dict _calls = {}


cdef bint _plain(a) except -1:
    """Whether equality says it all: True == 1 == 1.0, and lists change."""
    if a is None or type(a) is int or type(a) is str:
        return True
    if type(a) is tuple:
        for part in <tuple> a:
            if not _plain(part):
                return False
        return True
    return False


cdef bint _simple(a) except -1:
    """Whether shape, strides and dtype say all of an array; dtypes with other metadata are equal."""
    return type(a) is ndarray and a.flags.aligned and a.dtype.metadata is None


cdef tuple _key(str function, a, b, tuple arguments, bias, out):
    if not (_simple(a) and _simple(b) and _plain(arguments)):
        return None
    cdef tuple more = ()
    for c in (bias, out):
        if c is not None:
            if not _simple(c):
                return None
            more += (c is out, c.shape, c.strides, c.dtype)
    return function, a.shape, a.strides, a.dtype, b.shape, b.strides, b.dtype, arguments, more


def recall(str function, a, b, tuple arguments, bias, out):
    """The result, or None: then the call is new, or its numbers need more than the kernels."""
    key = _key(function, a, b, arguments, bias, out)
    call = None if key is None else _calls.get(key)
    if call is None:
        return None
    if out is not None:
        if not out.flags.writeable:
            return None
        for c in (a, b, bias):
            if c is not None and may_share_memory(out, c):
                return None
    return call(a, b, out, bias)


def remember(str function, a, b, tuple arguments, bias, out, call):
    """From now on `recall` calls ``call(a, b, out, bias)``."""
    key = _key(function, a, b, arguments, bias, out)
    if key is not None:
        if len(_calls) >= MOST and key not in _calls:
            forget()
        _calls[key] = call


def forget():
    """Forget all calls."""
    _calls.clear()

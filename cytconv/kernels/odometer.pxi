# Loops over any number of axes.

cdef extern from *:
    """
    #define MAX_DIMS 64  /* as many as numpy has; `Geometry` allows fewer */
    """
    enum:
        MAX_DIMS


cdef inline void advance(Py_ssize_t dims, const Py_ssize_t* size, Py_ssize_t* e) noexcept nogil:
    """Step an odometer of `dims` wheels."""
    cdef Py_ssize_t d
    for d in range(dims - 1, -1, -1):
        e[d] += 1
        if e[d] < size[d]:
            return
        e[d] = 0

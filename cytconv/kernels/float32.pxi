cdef extern from *:
    """
    typedef float real;
    """
    ctypedef float real

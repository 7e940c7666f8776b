cdef extern from *:
    """
    typedef double real;
    """
    ctypedef double real

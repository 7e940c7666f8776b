cdef extern from *:
    """
    typedef double real;
    """
    ctypedef double real

REAL = "d"  # its name in the protocol of buffers

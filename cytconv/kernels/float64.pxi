cdef extern from *:
    """
    typedef double real;
    #define REAL_BYTES 8
    """
    ctypedef double real

REAL = "d"  # its name in the protocol of buffers

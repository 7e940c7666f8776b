cdef extern from *:
    """
    typedef float real;
    #define REAL_BYTES 4
    """
    ctypedef float real

REAL = "f"  # its name in the protocol of buffers

cdef extern from *:
    """
    typedef float real;
    """
    ctypedef float real

REAL = "f"  # its name in the protocol of buffers

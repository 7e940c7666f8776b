# Arrays as the kernels take them: where their first element is, and no more.  Plans hold shapes and strides.

from cpython.buffer cimport PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uintptr_t


@final
cdef class Place:
    """The first element of an array, which stays where it is as long as this exists; NULL for None."""

    cdef Py_buffer view
    cdef real* first

    def __cinit__(self, array, bint writable=False):
        if array is not None:
            PyObject_GetBuffer(array, &self.view, PyBUF_STRIDES | (PyBUF_WRITABLE if writable else 0))
            self.first = <real*> self.view.buf

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef real* scratch_memory(Py_ssize_t size, void** block) except NULL:
    """Uninitialised memory for so many numbers, from the beginning of a cache line on; `block` is what to free."""
    block[0] = malloc(size * sizeof(real) + 64)
    if block[0] == NULL:
        raise MemoryError(f"no memory for {size} numbers of scratch")
    return <real*> ((<uintptr_t> block[0] + 63) // 64 * 64)

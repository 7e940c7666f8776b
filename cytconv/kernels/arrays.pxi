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


@final
cdef class Memory:
    """Uninitialised memory for so many numbers, from the beginning of a cache line on, as long as this exists."""

    cdef void* block
    cdef real* first

    def __cinit__(self, Py_ssize_t size):
        self.block = malloc(size * sizeof(real) + 64)
        if self.block == NULL:
            raise MemoryError(f"no memory for {size} numbers of scratch")
        self.first = <real*> ((<uintptr_t> self.block + 63) // 64 * 64)

    def __dealloc__(self):
        free(self.block)

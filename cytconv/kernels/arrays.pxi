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


# Blocks that were let go and wait for the next call.  New ones come from the system page by page, each filled with
# zeros first, which for a call of a millisecond can take as long as its work.
cdef enum:
    WAITING = 4
    LEAST = 1 << 16  # bytes; malloc keeps what is smaller
    MOST = 33 << 20  # bytes, for 32 MiB and what comes beside; the system gets back what is larger

cdef pymutex waiting_lock  # Python may run without a lock of its own
cdef void* waiting[WAITING]
cdef Py_ssize_t waiting_bytes[WAITING]
cdef int turn = 0


@final
cdef class Memory:
    """Uninitialised memory for so many numbers, from the beginning of a cache line on, as long as this exists."""

    cdef void* block
    cdef Py_ssize_t bytes
    cdef real* first

    def __cinit__(self, Py_ssize_t size):
        cdef Py_ssize_t wanted = size * sizeof(real) + 64
        cdef int i
        if LEAST <= wanted <= MOST:
            with waiting_lock:
                for i in range(WAITING):
                    if waiting[i] != NULL and wanted <= waiting_bytes[i] <= 2 * wanted:
                        self.block, self.bytes, waiting[i] = waiting[i], waiting_bytes[i], NULL
                        break
        if self.block == NULL:
            self.block, self.bytes = malloc(wanted), wanted
        if self.block == NULL:
            raise MemoryError(f"no memory for {size} numbers of scratch")
        self.first = <real*> ((<uintptr_t> self.block + 63) // 64 * 64)

    def __dealloc__(self):
        global turn
        cdef int place, i
        cdef void* unwanted = self.block
        if LEAST <= self.bytes <= MOST:
            with waiting_lock:
                place = turn
                for i in range(WAITING):
                    if waiting[i] == NULL:
                        place = i
                        break
                else:
                    turn = (turn + 1) % WAITING
                unwanted, waiting[place], waiting_bytes[place] = waiting[place], self.block, self.bytes
        free(unwanted)

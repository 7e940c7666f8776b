"""What plans are made of that takes loops: tables with a row for each phase, which numpy would take many calls for."""

import numpy as np


cdef inline Py_ssize_t parts(Py_ssize_t n, Py_ssize_t each) noexcept:
    return (n + each - 1) // each


def even_part(Py_ssize_t n, Py_ssize_t size, Py_ssize_t line, Py_ssize_t lanes):
    """About `size` of n lines, for parts that are computed in few vectors; of equally few, the nearest.

    To begin with a part takes as long as two vectors.
    """
    cdef Py_ssize_t each, vectors, least = -1, best = size
    for each in range(max(1, size * 3 // 4), min(size * 4 // 3, n) + 1):
        vectors = n // each * parts(each * line, lanes) + parts(n % each * line, lanes) + 2 * parts(n, each)
        if least < 0 or vectors < least or (vectors == least and abs(each - size) < abs(best - size)):
            least, best = vectors, each
    return best


def places(const Py_ssize_t[:, :] phases, sides):
    """Where phases begin in their array, and their positions ``[first, last)`` along every axis of positions.

    `phases` has a column for each axis of the kernel, `sides` an entry for each axis of positions: the axis of the
    kernel (-1 for batch), how far apart neighbouring elements are, where each phase starts, the step from one position
    to the next, the size of the array, and how many positions there are.
    """
    start, within = np.zeros(phases.shape[0], np.intp), np.empty((phases.shape[0], len(sides), 2), np.intp)
    cdef Py_ssize_t[::1] begin = start
    cdef Py_ssize_t[:, :, ::1] valid = within
    cdef const Py_ssize_t[::1] start_of
    cdef Py_ssize_t axis, stride, step, size, positions, first, last, row, d
    for d, (axis, stride, starts, step, size, positions) in enumerate(sides):
        start_of = np.asarray(starts, np.intp)
        for row in range(phases.shape[0]):
            first = start_of[phases[row, axis] if axis >= 0 else 0]
            # Offsets are modulo the address space: those of samples that there are come out right in any sum.
            begin[row] = <Py_ssize_t> (<size_t> begin[row] + <size_t> first * <size_t> stride)
            # Sample ``first + p*step`` is in the array for p from the quotient that rounds up ``-first/step`` on, and
            # before that of ``size - first``.
            last = min((size - first + step - 1) // step, positions) if first < size else 0
            first = min((step - 1 - first) // step, positions) if first < 0 else 0
            valid[row, d, 0], valid[row, d, 1] = first, max(first, last)
    return start, within


def blocks(
    const Py_ssize_t[::1] place, const Py_ssize_t[:, :, ::1] within, const Py_ssize_t[::1] groups,
):
    """Blocks of rows that lie next to each other in the result, so that they can be stored interleaved.

    `place` says where each row begins and `within` its positions, as `places` does; no block reaches from one of the
    `groups` into the next.  Returns the first row of each block, and the number of rows; the positions at which all
    rows of a block are within the result; whether some of its rows have more positions than that along the last axis;
    the block at which each group begins; and how many rows a block has, at most.
    """
    cdef Py_ssize_t rows = place.shape[0], last = within.shape[1] - 1, n = 0, group = 0, widest = 0, row, d
    first_row, ragged = np.empty(rows + 1, np.intp), np.zeros(rows, np.intp)
    shared, group_block = np.empty((rows, last + 1, 2), np.intp), np.empty(groups.shape[0], np.intp)
    cdef Py_ssize_t[::1] first = first_row, uneven = ragged, begin = group_block
    cdef Py_ssize_t[:, :, ::1] common = shared
    cdef bint together
    for row in range(rows):
        together = row > 0 and place[row] - place[row - 1] == 1
        while groups[group] == row:
            begin[group] = n
            group += 1
            together = False
        for d in range(last):
            together = together and within[row, d, 0] == within[row - 1, d, 0]
            together = together and within[row, d, 1] == within[row - 1, d, 1]
        if together:
            for d in range(2):
                uneven[n - 1] |= within[row, last, d] != within[row - 1, last, d]
            common[n - 1, last, 0] = max(common[n - 1, last, 0], within[row, last, 0])
            common[n - 1, last, 1] = max(common[n - 1, last, 0], min(common[n - 1, last, 1], within[row, last, 1]))
        else:
            first[n] = row
            common[n] = within[row]
            n += 1
        widest = max(widest, row + 1 - first[n - 1])
    first[n] = rows
    for group in range(group, groups.shape[0]):
        begin[group] = n
    return first_row[: n + 1], shared[:n], ragged[:n], group_block, widest

"""What plans are made of that takes loops, for which numpy would take many calls: boxes, and a row for each phase."""

from libc.math cimport INFINITY, ceil

import numpy as np

include "odometer.pxi"


cdef inline Py_ssize_t parts(Py_ssize_t n, Py_ssize_t each) noexcept nogil:
    return (n + each - 1) // each


# What it takes to pack, multiply and store boxes, in cycles but for RUN; measured with 1 to 64 channels and AVX-512,
# float32 and float64.
cdef enum:
    LINE = 50  # to begin with a line,
    JUMP = 150  # if it is stored and does not follow the one before it in memory,
    NUMBER = 3  # to copy a number,
    FAR = 2  # to load a vector from the second cache,
    RUN = 1  # and to begin with a run of positions, in the time of so many vectors of them


cdef struct Search:
    Py_ssize_t dims, lanes, most, pieces, workers
    double work, begin, planes, rows, near
    Py_ssize_t extent[MAX_DIMS]
    Py_ssize_t halo[MAX_DIMS]
    Py_ssize_t taps[MAX_DIMS]
    Py_ssize_t box[MAX_DIMS]  # that is looked at
    Py_ssize_t best[MAX_DIMS]
    double least  # what that takes
    Py_ssize_t left  # boxes that may still be looked at


def best_box(
    extent, halo, Py_ssize_t most, Py_ssize_t lanes, double work, double begin, double planes, double rows,
    Py_ssize_t pieces=1, Py_ssize_t workers=1, taps=None, double near=INFINITY,
):
    """The box of positions, `most` at most, that takes least time if all of `extent` is done in such boxes.

    To begin with a box takes `begin` cycles, and each vector of positions `work`, for all rows of results.  Packed are
    so many `planes`, with `halo` more positions along each axis, and stored so many `rows`.  Each box comes in so many
    `pieces`, and the `workers` share all of them.  Each position of a plane meets so many `taps` along each axis, and
    the nearest cache holds `near` positions of all planes.
    """
    cdef Search s
    cdef Py_ssize_t d
    if 0 in extent:
        return list(extent)
    s.dims, s.lanes, s.most, s.least, s.left = len(extent), lanes, most, INFINITY, 10_000
    s.work, s.begin, s.planes, s.rows = work, begin, planes, rows
    s.near, s.pieces, s.workers = near, pieces, workers
    for d in range(s.dims):
        s.extent[d], s.halo[d], s.taps[d] = extent[d], halo[d], taps[d] if taps else 1
        s.best[d] = 1
    search(&s, s.dims, 1)
    return [s.best[d] for d in range(s.dims)]


cdef void search(Search* s, Py_ssize_t d, Py_ssize_t size) noexcept nogil:
    """Try all sizes of the box along the axes before d; from there on it has `size` positions."""
    cdef Py_ssize_t number, each, full
    cdef double found
    if d == 0:
        found = cost(s)
        s.left -= 1
        if found < s.least:
            s.least, s.best = found, s.box
        return
    number = parts(s.extent[d - 1], max(1, min(s.most // size, s.extent[d - 1])))
    while s.left > 0:
        # Parts of equal size, as nearly as can be; of many parts, not every number of them.
        each = parts(s.extent[d - 1], number)
        s.box[d - 1] = each
        search(s, d - 1, size * each)
        # Or, but for the last of them, of full vectors.
        full = parts(each, s.lanes) * s.lanes
        if d == s.dims and each < full < s.extent[d - 1] and size * full <= s.most:
            s.box[d - 1] = full
            search(s, d - 1, size * full)
        if each == 1:
            return
        number = max(parts(s.extent[d - 1], each - 1), number + number * s.dims // 8)


cdef double cost(const Search* s) noexcept nogil:
    """What all boxes of this size take."""
    cdef Py_ssize_t d, last = s.dims - 1
    cdef Py_ssize_t rest = s.extent[last] % s.box[last]
    cdef double boxes = parts(s.extent[last], s.box[last])
    cdef double whole = s.extent[last] // s.box[last] * cost_of_box(s, s.box[last])
    if rest:
        whole += cost_of_box(s, rest)
    for d in range(last):
        boxes *= parts(s.extent[d], s.box[d])
        whole *= <double> s.extent[d] / s.box[d]
    # Where the last pieces are too few for all workers, some of these wait.
    return (boxes * s.begin + whole) * ceil(boxes * s.pieces / s.workers) / boxes


cdef double cost_of_box(const Search* s, Py_ssize_t line) noexcept nogil:
    """What one of them takes that has `line` positions along the last axis."""
    cdef Py_ssize_t d, last = s.dims - 1, size = line
    cdef double pitch = 1, run = 1, outer = line, fewest = INFINITY  # as a halo may be longer than memory
    cdef double packed = LINE + NUMBER * (<double> line + s.halo[last]), stored = LINE + NUMBER * line, jumps = 1
    cdef double taps = 1, far = 1
    cdef bint follows = True
    for d in range(last):
        outer *= s.box[d]
        packed *= <double> s.box[d] + s.halo[d]
        stored *= s.box[d]
        taps *= s.taps[d]
    for d in range(last, -1, -1):
        # The positions from some axis on are one run, with what the halo leaves between rows: wherever it is shortest.
        outer /= size
        run += (size - 1) * pitch
        fewest = min(fewest, outer * (ceil(run / s.lanes) + RUN))
        pitch *= <double> size + s.halo[d]
        if d > 0:
            # Lines of which there are several follow each other in memory, or they do not.
            follows = follows and size == s.extent[d]
            size = s.box[d - 1]
            if not follows:
                jumps *= size
            # A sample may have left the nearest cache when the next tap along that axis meets it.
            if taps * pitch > s.near:
                far *= s.taps[d - 1]
            taps /= s.taps[d - 1]
    return (s.work + FAR * s.planes * far) * fewest + s.planes * packed + s.rows * (stored + JUMP * jumps)


def run_times(box, halo, Py_ssize_t lanes, met, double again, double look_up):
    """For each axis, what a box takes, in vectors, if the positions from it on are one run, junk between rows and all.

    A run leaves out the taps that read nothing along the axes before: it meets the share `met` of those of each axis.
    To begin with one takes `again`, and `look_up` for each of these axes if there are such taps.
    """
    cdef Py_ssize_t d, size, dims = len(box), number = 1
    cdef double share = 1, pitch = 1, reach = 1
    cdef double vectors[MAX_DIMS]
    for d in range(dims - 1, -1, -1):
        size = box[d]
        reach += (size - 1) * pitch
        pitch *= <double> size + <Py_ssize_t> halo[d]
        vectors[d] = ceil(reach / lanes)
    times = []
    for d in range(dims):
        times.append(number * (vectors[d] * share + again + (d * look_up if share < 1 else 0)))
        number *= <Py_ssize_t> box[d]
        share *= <double> met[d]
    return times


def products(
    Py_ssize_t n, Py_ssize_t taps, Py_ssize_t m, Py_ssize_t stride, Py_ssize_t dilation, Py_ssize_t low,
):
    """How many pairs of samples and taps of a `cytconv._geometry.Axis` meet in its output."""
    cdef Py_ssize_t shift = -low, first, last
    cdef object number = 0
    if shift >= 0 and (n - 1) * stride + (taps - 1) * dilation + shift < m:
        return <object> n * taps
    for _ in range(taps):
        # Sample i is at output ``i*stride + shift``.
        first = (stride - 1 - shift) // stride if shift < 0 else 0
        last = min((m - 1 - shift) // stride + 1, n) if shift < m else 0
        if first < last:
            number += last - first
        shift += dilation
    return number


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
        # Along a line, positions begin and end at the same one or, from some row on, one earlier.
        for d in range(2):
            together = together and within[row - 1, last, d] >= within[row, last, d]
            together = together and within[first[n - 1], last, d] - 1 <= within[row, last, d]
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

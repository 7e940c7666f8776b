# Products by a sparse matrix that is kept by its rows (CSR); see `cytconv._rows`.
#
# Rows gather what they meet, or are scattered over the results that they meet.  Several vectors are multiplied at a
# time, side by side, so that an entry meets neighbours:
#
#     gather     y[row]    += a * x[column]              a at (row, column);   x, y   v0 v1 v2 v3   in each row
#     scatter    y[column] += conj(a) * x[row]
#
# Planes of rows have the same row pointer `ends` and `columns`.  Only the `rows` of a plane that have entries are kept:
# strides may leave most of them without.  Some planes are a group, whose columns follow those of the group before.

from libc.stdint cimport int32_t, int64_t

ctypedef fused index:
    int32_t
    int64_t

cdef enum:
    SHORT, MANY, RUNS  # rows of few entries, of many, of many neighbours
    LONG = 16  # entries that are many; neighbours of fewer would wait for what the row before them has stored,
    FAR = 64  # unless rows have so many entries
    NEAR = 64  # rows that meet other vectors next, while the nearest cache still has them

cdef struct Structure:
    Py_ssize_t height, kept, entries  # of a plane: rows, those that have entries, and these
    Py_ssize_t planes, columns  # of a group

cdef struct Share:  # of what is scattered: one row of the table `shares`
    Py_ssize_t begin, end  # rows that are kept, of all planes: in each,
    Py_ssize_t first, last  # of those of them that have entries in its columns,
    Py_ssize_t whole_first, whole_last  # and those that have no others
    Py_ssize_t column, past_column  # columns of the matrix: of each so many,
    Py_ssize_t width, start, stop  # those from `start` to `stop`;
    Py_ssize_t channels, channel, past_channel  # of so many that a row meets, those that it does;
    Py_ssize_t into  # the result that belongs to column 0


cdef const void* first_index(array) except? NULL:
    """Where indices of either size begin; whoever calls this keeps them."""
    cdef const int32_t[::1] narrow
    cdef const int64_t[::1] wide
    if array.itemsize == sizeof(int32_t):
        narrow = array
        return &narrow[0]
    wide = array
    return &wide[0]


@final
cdef class CompressedRows:
    """A matrix of planes of `height` rows, of which `rows` have entries: up to their `ends`, in these `columns`.

    `group` has the numbers of planes and of columns of a group.
    """

    cdef tuple arrays  # that the pointers lead to
    cdef const void* rows
    cdef const void* ends
    cdef const void* columns
    cdef const real* data
    cdef Structure of
    cdef int parts
    cdef bint wide  # indices, of 64 bits

    def __init__(self, rows, ends, columns, const real[::1] data, int parts, Py_ssize_t height, group):
        if not rows.itemsize == ends.itemsize == columns.itemsize:
            raise ValueError("rows, ends and columns must be indices of one size")
        self.arrays = rows, ends, columns, data
        self.rows, self.ends, self.columns = first_index(rows), first_index(ends), first_index(columns)
        self.data, self.parts, self.wide = &data[0], parts, rows.itemsize == sizeof(int64_t)
        self.of = Structure(height, rows.shape[0], columns.shape[0], group[0], group[1])

    def multiply(self, const real[:, :] x, real[:, :] y, Py_ssize_t together, int workers):
        """``y = matrix @ x`` with vectors side by side; so many rows `together` are a task."""
        cdef Vectors of_x = Vectors(x.shape[1], x.strides[0] // <Py_ssize_t> sizeof(real))
        cdef Vectors of_y = Vectors(y.shape[1], y.strides[0] // <Py_ssize_t> sizeof(real))
        cdef Py_ssize_t all = y.shape[0] // self.of.height * self.of.kept
        if self.wide:
            gather(
                self.of, self.parts, <const int64_t*> self.rows, <const int64_t*> self.ends,
                <const int64_t*> self.columns, self.data, all, together, &x[0, 0], of_x, &y[0, 0], of_y, workers,
            )
        else:
            gather(
                self.of, self.parts, <const int32_t*> self.rows, <const int32_t*> self.ends,
                <const int32_t*> self.columns, self.data, all, together, &x[0, 0], of_x, &y[0, 0], of_y, workers,
            )

    def multiply_adjoint(self, const Py_ssize_t[:, ::1] shares, const real[:, :] x, real[:, :] y, int workers):
        """``y = matrix^H @ x``: a row adds ``conj(a) * x[row]`` to the result of each entry a.

             columns of  share 0  |  share 1
              row 0      a a .  . | .  . . .         A share is some of the results, and the rows that meet them.  Most
              row 1      . a a  a | .  . . .         rows meet those of one share only, which takes them whole; others
              row 2      . . a  a | a  . . .         are visited by both, and each takes its own entries.
              row 3      . . .  . | a  a a .

        Or it is some of the rows, with results of its own.  Each result is added up in the order of the rows.
        """
        cdef Vectors of_x = Vectors(x.shape[1], x.strides[0] // <Py_ssize_t> sizeof(real))
        cdef Vectors of_y = Vectors(y.shape[1], y.strides[0] // <Py_ssize_t> sizeof(real))
        cdef const Share* first = <const Share*> &shares[0, 0]
        if shares.shape[1] * sizeof(Py_ssize_t) != sizeof(Share):
            raise ValueError("shares must have the fields of a Share")
        if self.wide:
            scatter(
                self.of, self.parts, <const int64_t*> self.rows, <const int64_t*> self.ends,
                <const int64_t*> self.columns, self.data, first, shares.shape[0], &x[0, 0], of_x, &y[0, 0], of_y,
                workers,
            )
        else:
            scatter(
                self.of, self.parts, <const int32_t*> self.rows, <const int32_t*> self.ends,
                <const int32_t*> self.columns, self.data, first, shares.shape[0], &x[0, 0], of_x, &y[0, 0], of_y,
                workers,
            )


cdef void gather(
    Structure of, int parts, const index* rows, const index* ends, const index* columns, const real* data,
    Py_ssize_t all, Py_ssize_t together, const real* x, Vectors of_x, real* y, Vectors of_y, int workers,
) noexcept:
    cdef Py_ssize_t tasks = (all + together - 1) // together, t
    for t in prange(tasks, nogil=True, schedule="static", num_threads=workers):
        if parts == 1:  # literals: see `inlined`
            gather_planes(
                of, t * together, min((t + 1) * together, all), 1, of_y.width, rows, ends, columns, data, x, of_x.pitch,
                y, of_y.pitch,
            )
        else:
            gather_planes(
                of, t * together, min((t + 1) * together, all), 2, of_y.width, rows, ends, columns, data, x, of_x.pitch,
                y, of_y.pitch,
            )


cdef inline inlined gather_planes(
    Structure of, Py_ssize_t row, Py_ssize_t end, int parts, Py_ssize_t width, const index* rows, const index* ends,
    const index* columns, const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    """Of all rows that are kept, those before `end`; and rows without entries, up to the next one."""
    cdef Py_ssize_t plane, first, last
    cdef const real* of_plane
    cdef const real* of_group
    cdef real* results
    while row < end:
        plane, first = row // of.kept, row % of.kept
        last = min(of.kept, first + end - row)
        of_plane = data + parts * of.entries * plane
        of_group = x + x_pitch * of.columns * (plane // of.planes)
        results = y + y_pitch * of.height * plane
        if of.kept < of.height:
            zero_rows(
                results, Vectors(width, y_pitch), rows[first] if first > 0 else 0,
                rows[last] if last < of.kept else of.height,
            )
        if parts == width == x_pitch == y_pitch == 1:
            gather_one(first, last, rows, ends, columns, of_plane, of_group, results)
        elif width > FEW:
            gather_many(
                first, last, parts, width, rows, ends, columns, of_plane, of_group, x_pitch, results, y_pitch,
            )
        else:
            gather_rows(
                first, last, parts, width, rows, ends, columns, of_plane, of_group, x_pitch, results, y_pitch,
            )
        row += last - first


cdef inline inlined gather_rows(
    Py_ssize_t first, Py_ssize_t last, int parts, Py_ssize_t width, const index* rows, const index* ends,
    const index* columns, const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    """As many vectors at a time as there are: a literal number of sums stays in registers."""
    cdef Py_ssize_t v, start = first, stop
    while start < last:
        stop = min(start + NEAR, last)
        v = 0
        while v < width:
            if width - v >= 16:
                gather_some(start, stop, parts, 16, rows, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
                v += 16
            elif width - v >= 8:
                gather_some(start, stop, parts, 8, rows, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
                v += 8
            elif width - v == 6:
                gather_some(start, stop, parts, 6, rows, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
                v += 6
            elif width - v >= 4:
                gather_some(start, stop, parts, 4, rows, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
                v += 4
            elif parts == 1 and width - v == 3:
                gather_some(start, stop, parts, 3, rows, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
                v += 3
            elif parts == 2 or width - v >= 2:
                gather_some(start, stop, parts, 2, rows, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
                v += 2
            else:
                gather_some(start, stop, parts, 1, rows, ends, columns, data, x + v, x_pitch, y + v, y_pitch)
                v += 1
        start = stop


cdef inline inlined gather_some(
    Py_ssize_t first, Py_ssize_t last, int parts, int width, const index* rows, const index* ends,
    const index* columns, const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    if are_packs(width) or are_quads(width):
        gather_packs(first, last, parts, width, rows, ends, columns, data, x, x_pitch, y, y_pitch)
    else:
        gather_numbers(first, last, parts, width, rows, ends, columns, data, x, x_pitch, y, y_pitch)


cdef inline inlined gather_packs(
    Py_ssize_t first, Py_ssize_t last, int parts, int width, const index* rows, const index* ends,
    const index* columns, const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    cdef Py_ssize_t row, j, end
    cdef pack sums[SUMS]
    cdef pack turned[SUMS]
    cdef pack odd
    for row in range(first, last):
        clear_sums(width, sums, turned)
        j, end = ends[row], ends[row + 1]
        if parts == 1 and width == PACK:  # two sums, so that none has to wait for the one before
            odd = EMPTY_PACK
            while j + 2 <= end:
                sums[0] = sums[0] + data[j] * (<const pack*> (x + x_pitch * <Py_ssize_t> columns[j]))[0]
                odd = odd + data[j + 1] * (<const pack*> (x + x_pitch * <Py_ssize_t> columns[j + 1]))[0]
                j += 2
            sums[0] = sums[0] + odd
        while j < end:
            multiply_entries(
                parts, width, 1, data + parts * j, 0, x + x_pitch * <Py_ssize_t> columns[j], 0, sums, turned
            )
            j += 1
        turn_sums(parts, width, 1, sums, turned)
        put_sums(width, False, sums, y + y_pitch * rows[row])


cdef inline inlined gather_numbers(
    Py_ssize_t first, Py_ssize_t last, int parts, int width, const index* rows, const index* ends,
    const index* columns, const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    cdef Py_ssize_t row, j, end
    cdef real sums[SUMS]
    cdef real turned[SUMS]
    cdef real odd_sums[SUMS]
    cdef real odd_turned[SUMS]
    cdef int i
    for row in range(first, last):
        for i in range(width):
            sums[i] = turned[i] = odd_sums[i] = odd_turned[i] = 0
        j, end = ends[row], ends[row + 1]
        if width == parts and end - j >= LONG:
            fetch_row(data + parts * j, parts * (end - j))
        while width < 4 and j + 2 <= end:  # two sums of each, so that none has to wait for the one before
            multiply_numbers(parts, width, data + parts * j, x + x_pitch * columns[j], sums, turned)
            multiply_numbers(parts, width, data + parts * (j + 1), x + x_pitch * columns[j + 1], odd_sums, odd_turned)
            j += 2
        while j < end:
            multiply_numbers(parts, width, data + parts * j, x + x_pitch * columns[j], sums, turned)
            j += 1
        if width < 4:
            for i in range(width):
                sums[i] = sums[i] + odd_sums[i]
                turned[i] = turned[i] + odd_turned[i]
        if parts == 2:
            for i in range(0, width, 2):
                sums[i] = sums[i] - turned[i + 1]
                sums[i + 1] = sums[i + 1] + turned[i]
        for i in range(width):
            y[y_pitch * rows[row] + i] = sums[i]


cdef inline inlined multiply_numbers(
    int parts, int width, const real* a, const real* x, real* sums, real* turned
) noexcept nogil:
    """``sums += a * x`` of real numbers, and if a is complex, the products by its part i in `turned`."""
    cdef int i
    for i in range(width):
        sums[i] = sums[i] + a[0] * x[i]
    if parts == 2:
        for i in range(width):
            turned[i] = turned[i] + a[1] * x[i]


cdef void gather_one(
    Py_ssize_t first, Py_ssize_t last, const index* rows, const index* ends, const index* columns, const real* data,
    const real* x, real* y,
) noexcept nogil:
    """One vector by itself."""
    cdef Py_ssize_t middle = (first + last) // 2
    cdef int like = kind(ends[middle], ends[middle + 1], columns)
    if like == SHORT:
        gather_alone(SHORT, first, last, rows, ends, columns, data, x, y)
    elif like == MANY:
        gather_alone(MANY, first, last, rows, ends, columns, data, x, y)
    else:
        gather_alone(RUNS, first, last, rows, ends, columns, data, x, y)


cdef inline inlined gather_alone(
    int kind, Py_ssize_t first, Py_ssize_t last, const index* rows, const index* ends, const index* columns,
    const real* data, const real* x, real* y,
) noexcept nogil:
    """Two sums, so that none has to wait for the one before, or more; and sums side by side, of neighbours."""
    cdef Py_ssize_t row, j = ends[first], end
    cdef real even, odd, third, fourth
    cdef pack sums
    cdef int i
    for row in range(first, last):
        even = odd = third = fourth = 0
        end = ends[row + 1]
        if kind != SHORT:
            fetch_row(data + j, end - j)
        if kind == RUNS:
            sums = EMPTY_PACK
            while j + 4 <= end:
                if are_neighbours(PACK, j, end, columns):
                    sums = sums + (<const pack*> (data + j))[0] * (<const pack*> (x + columns[j]))[0]
                    j += PACK
                else:
                    even = even + data[j] * x[columns[j]]
                    odd = odd + data[j + 1] * x[columns[j + 1]]
                    third = third + data[j + 2] * x[columns[j + 2]]
                    fourth = fourth + data[j + 3] * x[columns[j + 3]]
                    j += 4
                    KEEP_SCALAR(j)
            for i in range(PACK):
                even = even + (<real*> &sums)[i]
        while kind == MANY and j + 4 <= end:
            even = even + data[j] * x[columns[j]]
            odd = odd + data[j + 1] * x[columns[j + 1]]
            third = third + data[j + 2] * x[columns[j + 2]]
            fourth = fourth + data[j + 3] * x[columns[j + 3]]
            j += 4
            KEEP_SCALAR(j)
        while j + 2 <= end:
            even = even + data[j] * x[columns[j]]
            odd = odd + data[j + 1] * x[columns[j + 1]]
            j += 2
            KEEP_SCALAR(j)
        if j < end:
            even = even + data[j] * x[columns[j]]
            j += 1
        if kind != SHORT:
            even, odd = even + third, odd + fourth
        y[rows[row]] = even + odd


cdef inline int kind(Py_ssize_t j, Py_ssize_t end, const index* columns) noexcept nogil:
    """What rows are like, by one of them."""
    cdef Py_ssize_t run = 2 * PACK if j + FAR <= end else LONG
    return RUNS if are_neighbours(run, j, end, columns) else MANY if j + LONG <= end else SHORT


cdef inline bint are_neighbours(Py_ssize_t count, Py_ssize_t j, Py_ssize_t end, const index* columns) noexcept nogil:
    """Whether there are so many entries from `j` on, in columns one after the other: those of a row are sorted."""
    return PACK > 1 and j + count <= end and columns[j + count - 1] - columns[j] == count - 1


cdef void scatter(
    Structure of, int parts, const index* rows, const index* ends, const index* columns, const real* data,
    const Share* shares, Py_ssize_t count, const real* x, Vectors of_x, real* y, Vectors of_y, int workers,
) noexcept:
    cdef Py_ssize_t t
    for t in prange(count, nogil=True, schedule="dynamic", num_threads=workers):
        if parts == 1:
            scatter_share(of, shares + t, 1, of_y.width, rows, ends, columns, data, x, of_x.pitch, y, of_y.pitch)
        else:
            scatter_share(of, shares + t, 2, of_y.width, rows, ends, columns, data, x, of_x.pitch, y, of_y.pitch)


cdef inline inlined scatter_share(
    Structure of, const Share* share, int parts, Py_ssize_t width, const index* rows, const index* ends,
    const index* columns, const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    cdef Py_ssize_t row = share.begin, plane, base, first, last, stop, column = share.column, channel
    cdef const real* of_plane
    cdef real* of_group
    cdef const index* starts
    cdef const index* stops
    cdef index begin[NEAR]
    cdef index end[NEAR]
    cdef bint whole
    y += y_pitch * share.into
    while column < share.past_column:
        zero_rows(y, Vectors(width, y_pitch), column + share.start, column + share.stop)
        column += share.width
    while row < share.end:
        plane = row // of.kept
        base = plane * of.kept
        first, last = max(share.first, row - base), min(share.last, share.end - base)
        of_plane = data + parts * of.entries * plane
        of_group = y + y_pitch * of.columns * (plane // of.planes)
        while first < last:
            whole = share.whole_first <= first < share.whole_last
            stop = share.whole_last if whole else share.whole_first if first < share.whole_first else last
            stop = min(stop, last, first + NEAR)
            for channel in range(1 if whole else share.channels):
                starts, stops = begin, end
                if not whole:
                    cut_rows(share, channel, stop - first, ends + first, columns, begin, end)
                elif share.past_channel - share.channel < share.channels:
                    cut_channels(share, stop - first, ends + first, begin, end)
                else:
                    starts, stops = ends + first, ends + first + 1
                if width > FEW:
                    scatter_many(
                        stop - first, rows + first, starts, stops, parts, width, columns, of_plane,
                        x + x_pitch * of.height * plane, x_pitch, of_group, y_pitch,
                    )
                else:
                    scatter_rows(
                        stop - first, rows + first, starts, stops, parts, width, columns, of_plane,
                        x + x_pitch * of.height * plane, x_pitch, of_group, y_pitch,
                    )
            first = stop
        row = base + of.kept


cdef inline void cut_channels(
    const Share* share, Py_ssize_t rows, const index* ends, index* begin, index* end
) noexcept nogil:
    """Of rows, the entries in the channels of a share: there are as many in each."""
    cdef Py_ssize_t row
    cdef index each
    cdef double part = 1.0 / share.channels
    for row in range(rows):
        each = of_each(ends[row + 1] - ends[row], part)
        begin[row] = ends[row] + <index> share.channel * each
        end[row] = ends[row] + <index> share.past_channel * each


cdef inline void cut_rows(
    const Share* share, Py_ssize_t channel, Py_ssize_t rows, const index* ends, const index* columns, index* begin,
    index* end,
) noexcept nogil:
    """Of rows, the entries in the columns of a share, in one channel: they are sorted, and so next to each other."""
    cdef Py_ssize_t row, column = channel * share.width
    cdef index each, last
    cdef double part = 1.0 / share.channels
    for row in range(rows):
        each = of_each(ends[row + 1] - ends[row], part)
        last = ends[row] + <index> (channel + 1) * each
        begin[row] = first_from(columns, last - each, last, column + share.start)
        end[row] = first_from(columns, begin[row], last, column + share.stop)


cdef inline index of_each(index entries, double part) noexcept nogil:
    """Of a row, those in each channel: a division that leaves no rest, without the time that one of integers takes."""
    return <index> (entries * part + 0.5)


cdef inline index first_from(const index* columns, index first, index last, Py_ssize_t column) noexcept nogil:
    """Of the entries from `first` to `last`, the first in this column or a later one."""
    cdef index middle
    while first < last:
        middle = first + (last - first) // 2
        if columns[middle] < column:
            first = middle + 1
        else:
            last = middle
    return first


cdef inline inlined scatter_rows(
    Py_ssize_t count, const index* rows, const index* starts, const index* stops, int parts, Py_ssize_t width,
    const index* columns, const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    """So many `rows`, for as many vectors at a time as there are."""
    cdef Py_ssize_t v = 0
    while v < width:
        if width - v >= 16:
            scatter_some(count, rows, starts, stops, parts, 16, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 16
        elif width - v >= 8:
            scatter_some(count, rows, starts, stops, parts, 8, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 8
        elif width - v == 6:
            scatter_some(count, rows, starts, stops, parts, 6, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 6
        elif width - v >= 4:
            scatter_some(count, rows, starts, stops, parts, 4, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 4
        elif parts == 1 and width - v == 3:
            scatter_some(count, rows, starts, stops, parts, 3, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 3
        elif parts == 2 or width - v >= 2:
            scatter_some(count, rows, starts, stops, parts, 2, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 2
        elif x_pitch == y_pitch == 1:
            scatter_one(count, rows, starts, stops, columns, data, x, y)
            v += 1
        else:
            scatter_some(count, rows, starts, stops, parts, 1, columns, data, x + v, x_pitch, y + v, y_pitch)
            v += 1


cdef inline inlined scatter_some(
    Py_ssize_t count, const index* rows, const index* starts, const index* stops, int parts, int width,
    const index* columns, const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    if are_quads(width):
        scatter_quads(count, rows, starts, stops, parts, width, columns, data, x, x_pitch, y, y_pitch)
    elif are_packs(width):
        scatter_packs(count, rows, starts, stops, parts, width // PACK, columns, data, x, x_pitch, y, y_pitch)
    else:
        scatter_numbers(count, rows, starts, stops, parts, width, columns, data, x, x_pitch, y, y_pitch)


cdef inline inlined scatter_packs(
    Py_ssize_t count, const index* rows, const index* starts, const index* stops, int parts, int packs,
    const index* columns, const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    cdef Py_ssize_t row, j
    cdef pack* at
    cdef pack factors[SUMS]
    cdef pack turned[SUMS]
    cdef int i
    for row in range(count):
        for i in range(packs):
            factors[i] = (<const pack*> (x + x_pitch * rows[row]))[i]
            turned[i] = i_times(factors[i], -1)  # conj(a + i*b) * x = a*x + b*(-i*x)
        for j in range(starts[row], stops[row]):
            at = <pack*> (y + y_pitch * <Py_ssize_t> columns[j])
            for i in range(packs):
                if parts == 1:
                    at[i] = at[i] + data[j] * factors[i]
                else:
                    at[i] = at[i] + data[2 * j] * factors[i] + data[2 * j + 1] * turned[i]


cdef inline inlined scatter_quads(
    Py_ssize_t count, const index* rows, const index* starts, const index* stops, int parts, int width,
    const index* columns, const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    """The same of two quads, which overlap: both are read before any is written."""
    cdef Py_ssize_t row, j
    cdef real* at
    cdef quad factors[2]
    cdef quad turned[2]
    cdef quad found[2]
    cdef int i
    for row in range(count):
        for i in range(2):
            factors[i] = (<const quad*> (x + x_pitch * rows[row] + i * (width - 4)))[0]
            turned[i] = quad_i_times(factors[i], -1)
        for j in range(starts[row], stops[row]):
            at = y + y_pitch * <Py_ssize_t> columns[j]
            for i in range(2):
                found[i] = (<quad*> (at + i * (width - 4)))[0] + data[parts * j] * factors[i]
                if parts == 2:
                    found[i] = found[i] + data[2 * j + 1] * turned[i]
            for i in range(2):
                (<quad*> (at + i * (width - 4)))[0] = found[i]


# Not `inlined`: then GCC's code for two and four numbers is half as fast.
cdef inline void scatter_numbers(
    Py_ssize_t count, const index* rows, const index* starts, const index* stops, int parts, int width,
    const index* columns, const real* data, const real* x, Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    cdef Py_ssize_t row, j, stop
    cdef real* at
    cdef real* other
    cdef real factors[SUMS]
    cdef real turned[SUMS]
    cdef real found[SUMS]
    cdef real others[SUMS]
    cdef int i
    for row in range(count):
        for i in range(width):
            factors[i] = x[x_pitch * rows[row] + i]
        if parts == 2:
            for i in range(0, width, 2):  # conj(a + i*b) * x = a*x + b*(-i*x)
                turned[i] = factors[i + 1]
                turned[i + 1] = -factors[i]
        j, stop = starts[row], stops[row]
        if width == parts and stop - j >= LONG:
            fetch_row(data + parts * j, parts * (stop - j))
        while width < 4 and j + 2 <= stop:  # see `scatter_alone`
            at, other = y + y_pitch * columns[j], y + y_pitch * columns[j + 1]
            add_numbers(parts, width, data + parts * j, factors, turned, at, found)
            add_numbers(parts, width, data + parts * (j + 1), factors, turned, other, others)
            for i in range(width):
                at[i] = found[i]
            for i in range(width):
                other[i] = others[i]
            j += 2
        while j < stop:
            at = y + y_pitch * columns[j]
            add_numbers(parts, width, data + parts * j, factors, turned, at, at)
            j += 1


cdef inline inlined add_numbers(
    int parts, int width, const real* a, const real* factors, const real* turned, const real* y, real* found
) noexcept nogil:
    """``found = y + conj(a) * factors``, of which i times those are `turned`."""
    cdef int i
    for i in range(width):
        if parts == 1:
            found[i] = y[i] + a[0] * factors[i]
        else:
            found[i] = y[i] + (a[0] * factors[i] + a[1] * turned[i])


cdef inline inlined scatter_one(
    Py_ssize_t count, const index* rows, const index* starts, const index* stops, const index* columns,
    const real* data, const real* x, real* y,
) noexcept nogil:
    """One vector by itself."""
    cdef int like = kind(starts[count // 2], stops[count // 2], columns)
    if like == SHORT:
        scatter_alone(SHORT, count, rows, starts, stops, columns, data, x, y)
    elif like == MANY:
        scatter_alone(MANY, count, rows, starts, stops, columns, data, x, y)
    else:
        scatter_alone(RUNS, count, rows, starts, stops, columns, data, x, y)


cdef inline inlined scatter_alone(
    int kind, Py_ssize_t count, const index* rows, const index* starts, const index* stops, const index* columns,
    const real* data, const real* x, real* y,
) noexcept nogil:
    """A row has each column once: so several are read before any is written, which CPUs would wait for.

    Rows are RUNS only if a pack has several numbers: where one fits, two do.
    Which are, may depend on how rows are cut: either way rounds a product and its sum alike.
    """
    cdef Py_ssize_t row, j, stop
    cdef real a, even, odd
    cdef real found[4]  # of many
    cdef pack* at
    cdef int i
    for row in range(count):
        j, stop, a = starts[row], stops[row], x[rows[row]]
        if kind != SHORT:
            fetch_row(data + j, stop - j)
        if kind == RUNS:
            while j + PACK <= stop:
                if are_neighbours(PACK, j, stop, columns):
                    at = <pack*> (y + columns[j])
                    at[0] = at[0] + (<const pack*> (data + j))[0] * a
                    j += PACK
                else:
                    even = y[columns[j]] + data[j] * a
                    odd = y[columns[j + 1]] + data[j + 1] * a
                    y[columns[j]] = even
                    y[columns[j + 1]] = odd
                    j += 2
        while kind == MANY and j + 4 <= stop:
            for i in range(4):
                found[i] = y[columns[j + i]] + data[j + i] * a
            for i in range(4):
                y[columns[j + i]] = found[i]
            j += 4
            KEEP_SCALAR(j)
        while j + 2 <= stop:
            even = y[columns[j]] + data[j] * a
            odd = y[columns[j + 1]] + data[j + 1] * a
            y[columns[j]] = even
            y[columns[j + 1]] = odd
            j += 2
            KEEP_SCALAR(j)
        if j < stop:
            y[columns[j]] = y[columns[j]] + data[j] * a


cdef inline inlined fetch_row(const real* a, Py_ssize_t count) noexcept nogil:
    """What comes after so many numbers of a row: CPUs expect it up to the end of a page, and lose time there."""
    cdef const real* end = a + AHEAD + count
    a += AHEAD
    while a < end:
        FETCH(a)
        a += PER_LINE

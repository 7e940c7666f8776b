# Products by a sparse matrix that is kept by its diagonals; see `cytconv._diagonals`.
#
# A piece is `rows` rows, one after the other in a phase of the stride.  Path p through the channels and the other axes,
# and tap j along the last one, have a diagonal
#
#     a[p, j, t]   in row t   and column   column[p] + j*step + t          0 <= t < rows
#
#     t    0  1  2  3  4  5
#     0    a0 b0 c0                     one path, three taps, four rows: in memory
#     1       a1 b1 c1
#     2          a2 b2 c2               a0 a1 a2 a3 | b0 b1 b2 b3 | c0 c1 c2 c3
#     3             a3 b3 c3
#
#     forward    y[t] += a[p, j, t] * x[column[p] + j*step + t]
#     adjoint    x[column[p] + j*step + t] += conj(a[p, j, t]) * y[t]
#
# One vector is multiplied along one diagonal after the other, packs of rows at a time: in the adjoint along each to its
# end; forward as many packs along all of them as there are registers for their sums, which is a whole piece with packs
# of 32 bytes.  (The adjoint took up to twice as long that way: it has to begin and end with numbers, as a pack of
# columns does not meet all taps; and it left the order of memory.)
#
# Several vectors lie side by side, so that an entry meets neighbours.  Their sums stay in registers: forward those of a
# row, or two, over all paths and taps; in the adjoint those of a column, over a few diagonals of a path that are next
# to each other.  (Of many vectors: see many.pxi.)

cdef enum:
    MOST_ROWS = 64  # of a piece, the most in `_diagonals.ROWS`
    TASKS = 8  # for each worker
    TURNS = 16  # blocks whose rows are taken in turns, at most

cdef struct Line:  # of outputs along the last axis: a row of the table `lines`
    Py_ssize_t row, column, before  # its first row and column, and entries before it, in its plane
    Py_ssize_t first, count  # of its paths

cdef struct Piece:  # some of its rows: a row of the table `pieces`
    Py_ssize_t row, column, before  # relative to its line; entries if that had one path
    Py_ssize_t place, taps, rows

cdef struct Path:
    Py_ssize_t column, place

cdef struct Spot:  # of a block in the matrix
    Py_ssize_t plane, line, piece

cdef struct Block:  # a piece of a line of a plane
    Py_ssize_t row, column  # the first ones, of the matrix
    Py_ssize_t taps, rows, count
    const Path* paths
    real* entries
    Py_ssize_t output, group, weight  # which channel of which group, and the place of its first weight

cdef struct Portion:  # of a product by the adjoint: a row of the table `portions`
    Py_ssize_t start, stop  # the columns,
    Py_ssize_t first, last  # the blocks that may meet them,
    Py_ssize_t into  # and the result that belongs to column 0


@final
cdef class Diagonals:
    """A matrix of so many `groups` and `channels` of each, ``(C_in, C_out)``, whose planes have the same structure.

    `plane` has the numbers of rows, of columns and of entries of one channel.  `steps` are those from a row of a piece
    to the next, and from one diagonal to the next.  With `gaps`, some rows are in no piece of any line.
    """

    cdef const Py_ssize_t[:, ::1] line_table, piece_table, path_table
    cdef const Line* lines
    cdef const Piece* pieces
    cdef const Path* paths
    cdef real[::1] memory
    cdef real* entries
    cdef Py_ssize_t line_count, piece_count, groups, inputs, outputs, plane_rows, plane_columns, plane_entries
    cdef Py_ssize_t row_step, column_step
    cdef int parts
    cdef bint gaps

    def __init__(self, **tables):
        self.line_table, self.piece_table, self.path_table = tables["lines"], tables["pieces"], tables["paths"]
        self.line_count, self.piece_count = self.line_table.shape[0], self.piece_table.shape[0]
        self.lines = <const Line*> &self.line_table[0, 0] if self.line_count else NULL
        self.pieces = <const Piece*> &self.piece_table[0, 0] if self.piece_count else NULL
        self.paths = <const Path*> &self.path_table[0, 0]
        for i in range(self.piece_count):
            if self.pieces[i].rows > MOST_ROWS:
                raise ValueError(f"a piece of {self.pieces[i].rows} rows must have at most {MOST_ROWS}")
        self.memory = tables["entries"]
        self.entries = &self.memory[0] if self.memory.shape[0] else NULL
        self.parts, self.groups, self.gaps = tables["parts"], tables["groups"], tables["gaps"]
        self.inputs, self.outputs = tables["channels"]
        self.plane_rows, self.plane_columns, self.plane_entries = tables["plane"]
        self.row_step, self.column_step = tables["steps"]

    cdef Py_ssize_t blocks(self) noexcept nogil:
        return self.groups * self.outputs * self.line_count * self.piece_count

    cdef inline Spot spot(self, Py_ssize_t number) noexcept nogil:
        cdef Py_ssize_t lines = number // self.piece_count
        return Spot(lines // self.line_count, lines % self.line_count, number % self.piece_count)

    cdef inline void advance(self, Spot* at) noexcept nogil:
        """To the next block, without a division."""
        at.piece += 1
        if at.piece == self.piece_count:
            at.piece = 0
            at.line += 1
            if at.line == self.line_count:
                at.line = 0
                at.plane += 1

    cdef inline int take(self, Spot* at, Py_ssize_t most, Block* blocks) noexcept nogil:
        """Blocks from a spot on whose rows take turns: pieces of one line, each of another phase of the stride."""
        cdef Py_ssize_t past = self.pieces[at.piece].row + self.row_step
        cdef int count = 0
        most = min(most, min(TURNS, self.piece_count - at.piece))
        while count < most and self.pieces[at.piece].row < past:
            blocks[count] = self.block(at[0])
            self.advance(at)
            count += 1
        return count

    cdef inline Block block(self, Spot at) noexcept nogil:
        cdef const Piece* piece = self.pieces + at.piece
        cdef const Line* line = self.lines + at.line
        cdef Block b
        b.group = at.plane if self.outputs == 1 else at.plane // self.outputs
        b.output = at.plane - b.group * self.outputs
        b.row = at.plane * self.plane_rows + line.row + piece.row
        b.column = b.group * self.inputs * self.plane_columns + line.column + piece.column
        b.taps, b.rows, b.count, b.paths = piece.taps, piece.rows, line.count, self.paths + line.first
        b.entries = self.entries + self.parts * (
            at.plane * self.plane_entries + line.before + line.count * piece.before
        )
        b.weight = piece.place
        return b

    def fill(self, const real[::1] w, steps, int workers):
        """Entries from the weights: each diagonal of a piece is one of them.

        `steps` are those from a group to the next, from a channel of y, and from a tap along the last axis.
        """
        cdef Py_ssize_t group_step = steps[0], channel_step = steps[1], tap_step = steps[2]
        cdef Py_ssize_t blocks = self.blocks(), tasks = min(blocks, TASKS * workers), t
        for t in prange(tasks, nogil=True, schedule="dynamic", num_threads=workers):
            self.fill_blocks(blocks * t // tasks, blocks * (t + 1) // tasks, &w[0], group_step, channel_step, tap_step)

    cdef void fill_blocks(
        self, Py_ssize_t first, Py_ssize_t last, const real* w, Py_ssize_t group_step, Py_ssize_t channel_step,
        Py_ssize_t tap_step,
    ) noexcept nogil:
        cdef Spot at = self.spot(first)
        for _ in range(first, last):
            self.fill_block(self.block(at), w, group_step, channel_step, tap_step)
            self.advance(&at)

    cdef void fill_block(
        self, Block b, const real* w, Py_ssize_t group_step, Py_ssize_t channel_step, Py_ssize_t tap_step
    ) noexcept nogil:
        cdef Py_ssize_t p, j, t, at = 0
        cdef real re, im
        w += self.parts * (b.group * group_step + b.output * channel_step + b.weight)
        for p in range(b.count):
            for j in range(b.taps):
                re = w[self.parts * (b.paths[p].place + j * tap_step)]
                if self.parts == 1:
                    for t in range(b.rows):
                        b.entries[at + t] = re
                else:
                    im = w[2 * (b.paths[p].place + j * tap_step) + 1]
                    for t in range(b.rows):
                        b.entries[at + 2 * t] = re
                        b.entries[at + 2 * t + 1] = im
                at += self.parts * b.rows

    def multiply(self, const real[:, :] x, real[:, :] y, int workers):
        """``y = matrix @ x``, of vectors side by side as real numbers."""
        cdef Py_ssize_t blocks = self.blocks(), tasks = min(blocks, TASKS * workers), t
        cdef Vectors of_x = Vectors(x.shape[1], x.strides[0] // <Py_ssize_t> sizeof(real))
        cdef Vectors of_y = Vectors(y.shape[1], y.strides[0] // <Py_ssize_t> sizeof(real))
        if self.gaps:
            zero_rows(&y[0, 0], of_y, 0, y.shape[0])
        for t in prange(tasks, nogil=True, schedule="dynamic", num_threads=workers):
            if x.shape[1] > FEW:
                multiply_many(self, blocks * t // tasks, blocks * (t + 1) // tasks, &x[0, 0], of_x, &y[0, 0], of_y)
            elif self.parts == 1:  # literals: see `inlined`
                multiply_blocks(self, blocks * t // tasks, blocks * (t + 1) // tasks, 1, &x[0, 0], of_x, &y[0, 0], of_y)
            else:
                multiply_blocks(self, blocks * t // tasks, blocks * (t + 1) // tasks, 2, &x[0, 0], of_x, &y[0, 0], of_y)

    def multiply_adjoint(self, const real[:, :] x, real[:, :] y, const Py_ssize_t[:, ::1] portions, int workers):
        """``y = matrix^H @ x``: results are added up in the order of the rows, those of each portion by themselves."""
        cdef Vectors of_x = Vectors(x.shape[1], x.strides[0] // <Py_ssize_t> sizeof(real))
        cdef Vectors of_y = Vectors(y.shape[1], y.strides[0] // <Py_ssize_t> sizeof(real))
        cdef Py_ssize_t t
        if portions.shape[1] * sizeof(Py_ssize_t) != sizeof(Portion):
            raise ValueError("portions must have the fields of a Portion")
        for t in prange(portions.shape[0], nogil=True, schedule="dynamic", num_threads=workers):
            if x.shape[1] > FEW:
                add_many(self, <const Portion*> &portions[t, 0], &x[0, 0], of_x, &y[0, 0], of_y)
            elif self.parts == 1:
                add_to_columns(self, <const Portion*> &portions[t, 0], 1, &x[0, 0], of_x, &y[0, 0], of_y)
            else:
                add_to_columns(self, <const Portion*> &portions[t, 0], 2, &x[0, 0], of_x, &y[0, 0], of_y)


cdef inline inlined multiply_blocks(
    Diagonals matrix, Py_ssize_t first, Py_ssize_t last, int parts, const real* x, Vectors of_x, real* y, Vectors of_y
) noexcept nogil:
    cdef Spot at = matrix.spot(first)
    cdef Py_ssize_t v
    cdef Block b
    for _ in range(first, last):
        b = matrix.block(at)
        matrix.advance(&at)
        v = 0
        while v < of_x.width:  # as many vectors at a time as there are, and literally so: see `inlined`
            if of_x.width - v >= 16:
                multiply_block(matrix, &b, parts, 16, x + v, of_x.pitch, y + v, of_y.pitch)
                v += 16
            elif of_x.width - v >= 8:
                multiply_block(matrix, &b, parts, 8, x + v, of_x.pitch, y + v, of_y.pitch)
                v += 8
            elif of_x.width - v == 6:
                multiply_block(matrix, &b, parts, 6, x + v, of_x.pitch, y + v, of_y.pitch)
                v += 6
            elif of_x.width - v >= 4:
                multiply_block(matrix, &b, parts, 4, x + v, of_x.pitch, y + v, of_y.pitch)
                v += 4
            elif parts == 1 and of_x.width - v == 3:
                multiply_block(matrix, &b, parts, 3, x + v, of_x.pitch, y + v, of_y.pitch)
                v += 3
            elif of_x.width - v > parts:
                multiply_block(matrix, &b, parts, 2, x + v, of_x.pitch, y + v, of_y.pitch)
                v += 2
            elif of_x.width == of_x.pitch == parts:
                multiply_block(matrix, &b, parts, ALONE, x, of_x.pitch, y, of_y.pitch)
                v += parts
            else:
                multiply_block(matrix, &b, parts, parts, x + v, of_x.pitch, y + v, of_y.pitch)
                v += parts


cdef inline inlined multiply_block(
    Diagonals matrix, const Block* b, int parts, int width, const real* x, Py_ssize_t x_pitch, real* y,
    Py_ssize_t y_pitch,
) noexcept nogil:
    """`width` numbers side by side, row by row; or one vector, some packs of rows at a time."""
    cdef real sums[2 * MOST_ROWS]
    cdef Py_ssize_t t = 0, rows, y_step = y_pitch * matrix.row_step, x_step = x_pitch * matrix.column_step
    cdef Py_ssize_t entries = parts * b.count * b.taps  # of a row
    cdef real* to
    y, x = y + y_pitch * b.row, x + x_pitch * b.column
    if width == ALONE:
        to = y if y_step == parts else sums
        multiply_diagonals(parts, b, x, x_step, to)
        if to == y:
            return
        for t in range(b.rows):
            y[0] = sums[parts * t]
            if parts == 2:
                y[1] = sums[2 * t + 1]
            y += y_step
        return
    while t < b.rows:
        # Sums of few numbers wait for each other: then those of two rows are taken side by side.
        rows = 2 if width <= 2 * PACK and t + 2 <= b.rows else 1
        fetch_slice(b.entries + b.rows * entries + t * entries, rows * entries)
        if rows == 1:
            if b.taps == 1:
                multiply_row(parts, width, 1, b, b.entries + parts * t, x + x_pitch * t, x_pitch, x_step, y)
            elif b.taps == 2:
                multiply_row(parts, width, 2, b, b.entries + parts * t, x + x_pitch * t, x_pitch, x_step, y)
            else:
                multiply_row(parts, width, b.taps, b, b.entries + parts * t, x + x_pitch * t, x_pitch, x_step, y)
        elif b.taps == 1:
            multiply_pair(parts, width, 1, b, b.entries + parts * t, x + x_pitch * t, x_pitch, x_step, y, y_step)
        elif b.taps == 2:
            multiply_pair(parts, width, 2, b, b.entries + parts * t, x + x_pitch * t, x_pitch, x_step, y, y_step)
        else:
            multiply_pair(parts, width, b.taps, b, b.entries + parts * t, x + x_pitch * t, x_pitch, x_step, y, y_step)
        y += rows * y_step
        t += rows


cdef inline inlined multiply_row(
    int parts, int width, Py_ssize_t taps, const Block* b, const real* a, const real* x, Py_ssize_t x_pitch,
    Py_ssize_t x_step, real* y,
) noexcept nogil:
    """One row; `taps` may be literal."""
    cdef pack sums[SUMS]
    cdef pack turned[SUMS]
    cdef Py_ssize_t p
    clear_sums(width, sums, turned)
    for p in range(b.count):
        multiply_entries(parts, width, taps, a, parts * b.rows, x + x_pitch * b.paths[p].column, x_step, sums, turned)
        a += parts * taps * b.rows
    turn_sums(parts, width, 1, sums, turned)
    put_sums(width, False, sums, y)


cdef inline inlined multiply_pair(
    int parts, int width, Py_ssize_t taps, const Block* b, const real* a, const real* x, Py_ssize_t x_pitch,
    Py_ssize_t x_step, real* y, Py_ssize_t y_step,
) noexcept nogil:
    """A row and the next one."""
    cdef pack sums[SUMS]
    cdef pack turned[SUMS]
    cdef pack next_sums[SUMS]
    cdef pack next_turned[SUMS]
    cdef const real* at
    cdef Py_ssize_t p, j
    clear_sums(width, sums, turned)
    clear_sums(width, next_sums, next_turned)
    for p in range(b.count):
        at = x + x_pitch * b.paths[p].column
        for j in range(taps):
            multiply_entries(parts, width, 1, a, 0, at, 0, sums, turned)
            multiply_entries(parts, width, 1, a + parts, 0, at + x_pitch, 0, next_sums, next_turned)
            a += parts * b.rows
            at += x_step
    turn_sums(parts, width, 1, sums, turned)
    turn_sums(parts, width, 1, next_sums, next_turned)
    put_sums(width, False, sums, y)
    put_sums(width, False, next_sums, y + y_step)


cdef inline inlined add_to_columns(
    Diagonals matrix, const Portion* portion, int parts, const real* x, Vectors of_x, real* y, Vectors of_y
) noexcept nogil:
    """What the blocks of a portion add to its columns."""
    cdef Py_ssize_t start = portion.start, stop = portion.stop, v
    cdef Spot at
    cdef Block b
    if start == stop:
        return
    y += of_y.pitch * portion.into
    zero_rows(y, of_y, start, stop)
    if portion.first == portion.last:
        return
    at = matrix.spot(portion.first)
    for _ in range(portion.first, portion.last):
        b = matrix.block(at)
        matrix.advance(&at)
        v = 0
        while v < of_x.width:
            if of_x.width - v >= 16:
                add_block(matrix, &b, start, stop, parts, 16, x + v, of_x.pitch, y + v, of_y.pitch)
                v += 16
            elif of_x.width - v >= 8:
                add_block(matrix, &b, start, stop, parts, 8, x + v, of_x.pitch, y + v, of_y.pitch)
                v += 8
            elif of_x.width - v == 6:
                add_block(matrix, &b, start, stop, parts, 6, x + v, of_x.pitch, y + v, of_y.pitch)
                v += 6
            elif of_x.width - v >= 4:
                add_block(matrix, &b, start, stop, parts, 4, x + v, of_x.pitch, y + v, of_y.pitch)
                v += 4
            elif parts == 1 and of_x.width - v == 3:
                add_block(matrix, &b, start, stop, parts, 3, x + v, of_x.pitch, y + v, of_y.pitch)
                v += 3
            elif of_x.width - v > parts:
                add_block(matrix, &b, start, stop, parts, 2, x + v, of_x.pitch, y + v, of_y.pitch)
                v += 2
            elif of_y.width == of_y.pitch == parts:
                add_block(matrix, &b, start, stop, parts, ALONE, x, of_x.pitch, y, of_y.pitch)
                v += parts
            else:
                add_block(matrix, &b, start, stop, parts, parts, x + v, of_x.pitch, y + v, of_y.pitch)
                v += parts


cdef inline inlined add_block(
    Diagonals matrix, const Block* b, Py_ssize_t start, Py_ssize_t stop, int parts, int width, const real* x,
    Py_ssize_t x_pitch, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    """What a block adds to the columns from `start` to `stop`."""
    cdef real gathered[2 * MOST_ROWS]
    cdef Py_ssize_t group = b.group * matrix.inputs * matrix.plane_columns, channel_paths = b.count // matrix.inputs
    cdef Py_ssize_t first = 0, last = b.count, p, j, t, taps, column, low, high, pitch = x_pitch * matrix.row_step
    cdef const real* a
    cdef real* at
    if start > group:  # the channels before have no columns among them
        first = (start - group) // matrix.plane_columns * channel_paths
    if stop - group < matrix.inputs * matrix.plane_columns:
        last = ((stop - group - 1) // matrix.plane_columns + 1) * channel_paths
    # Of a small share most blocks have no column, from the first of their first path to the last of their last one.
    if b.column + b.paths[first].column >= stop:
        return
    if b.column + b.paths[last - 1].column + (b.taps - 1) * matrix.column_step + b.rows <= start:
        return
    x += x_pitch * b.row
    if width == ALONE and pitch != parts:
        for t in range(b.rows):
            gathered[parts * t] = x[t * pitch]
            if parts == 2:
                gathered[2 * t + 1] = x[t * pitch + 1]
        x, pitch = gathered, parts
    for p in range(first, last):
        a, column, j = b.entries + parts * p * b.taps * b.rows, b.column + b.paths[p].column, 0
        while width == ALONE and j < b.taps:
            low, high = max(start - column, 0), min(stop - column, b.rows)
            if low < high:
                add_diagonal(parts, -1, high - low, a + parts * low, x + parts * low, y + parts * (column + low))
            a, column, j = a + parts * b.rows, column + matrix.column_step, j + 1
        while j < b.taps:
            taps = 1 if b.taps - j == 1 else 2 if b.taps - j < 4 else 4
            low, high, at = start - column, stop - column, y + y_pitch * column
            if taps == 1:
                add_columns(matrix, b, 1, low, high, parts, width, a, x, pitch, at, y_pitch)
            elif taps == 2:
                add_columns(matrix, b, 2, low, high, parts, width, a, x, pitch, at, y_pitch)
            else:
                add_columns(matrix, b, 4, low, high, parts, width, a, x, pitch, at, y_pitch)
            a, column, j = a + parts * taps * b.rows, column + taps * matrix.column_step, j + taps


cdef inline inlined add_columns(
    Diagonals matrix, const Block* b, int taps, Py_ssize_t start, Py_ssize_t stop, int parts, int width, const real* a,
    const real* x, Py_ssize_t x_step, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    """Columns from `start` to `stop` of a literal number of `taps`: at both ends, columns meet some of them only."""
    cdef Py_ssize_t step = matrix.column_step, span = (taps - 1) * step, q
    cdef Py_ssize_t a_step = parts * (b.rows - step)
    cdef Py_ssize_t first = max(start, 0), last = min(stop, b.rows + span)
    cdef Py_ssize_t whole = min(max(first, span), last), past_whole = max(whole, min(last, b.rows))
    for q in range(first, whole):
        add_end(matrix, b, taps, q, parts, width, a, a_step, x, x_step, y, y_pitch)
    for q in range(whole, past_whole):
        fetch_slice(a + parts * taps * (b.rows + q), parts * taps)
        add_column(parts, width, taps, a + parts * q, a_step, x + x_step * q, -x_step * step, y + y_pitch * q)
    for q in range(past_whole, last):
        add_end(matrix, b, taps, q, parts, width, a, a_step, x, x_step, y, y_pitch)


cdef inline inlined add_end(
    Diagonals matrix, const Block* b, int taps, Py_ssize_t q, int parts, int width, const real* a, Py_ssize_t a_step,
    const real* x, Py_ssize_t x_step, real* y, Py_ssize_t y_pitch,
) noexcept nogil:
    """A column that some of the taps are in."""
    cdef Py_ssize_t step = matrix.column_step
    cdef Py_ssize_t first = max((q - b.rows + step) // step, 0), last = min(q // step, taps - 1)
    add_column(
        parts, width, last - first + 1, a + parts * q + first * a_step, a_step, x + x_step * (q - first * step),
        -x_step * step, y + y_pitch * q,
    )


cdef inline inlined add_column(
    int parts, int width, Py_ssize_t taps, const real* a, Py_ssize_t a_step, const real* x, Py_ssize_t x_step, real* y
) noexcept nogil:
    """What the diagonals that a column meets add to it; `taps` may be literal."""
    cdef pack sums[SUMS]
    cdef pack turned[SUMS]
    clear_sums(width, sums, turned)
    multiply_entries(parts, width, taps, a, a_step, x, x_step, sums, turned)
    turn_sums(parts, width, -1, sums, turned)
    put_sums(width, True, sums, y)


cdef inline inlined fetch_slice(const real* a, Py_ssize_t count) noexcept nogil:
    """Rows and columns are not read in the order of memory: so what comes next is fetched, some with each of them."""
    cdef const real* end = a + count
    while a < end:
        FETCH(a)
        a += PER_LINE


# ---- one vector --------------------------------------------------------------------------------------

cdef inline inlined multiply_diagonals(
    int parts, const Block* b, const real* x, Py_ssize_t x_step, real* y
) noexcept nogil:
    """Rows of a block, next to each other here: some packs of them at a time, whose sums stay in registers."""
    cdef Py_ssize_t n = parts * b.rows, t = 0, p, j
    cdef const real* a = b.entries
    cdef const real* at
    if n < PACK or PACK == 1:
        memset(y, 0, n * sizeof(real))
        for p in range(b.count):
            at = x + parts * b.paths[p].column
            for j in range(b.taps):
                add_diagonal(parts, 1, b.rows, a, at, y)
                a, at = a + n, at + x_step
        return
    while t < n:
        if n - t >= 12 * PACK:
            multiply_packs(parts, 12, b, x, x_step, t, y)
            t += 12 * PACK
        elif n - t >= 8 * PACK:
            multiply_packs(parts, 8, b, x, x_step, t, y)
            t += 8 * PACK
        elif n - t >= 4 * PACK:
            multiply_packs(parts, 4, b, x, x_step, t, y)
            t += 4 * PACK
        elif n - t >= 2 * PACK:
            multiply_packs(parts, 2, b, x, x_step, t, y)
            t += 2 * PACK
        else:  # the last one overlaps the one before
            t = min(t, n - PACK)
            multiply_packs(parts, 1, b, x, x_step, t, y)
            t += PACK


cdef inline inlined multiply_packs(
    int parts, int packs, const Block* b, const real* x, Py_ssize_t x_step, Py_ssize_t first, real* y
) noexcept nogil:
    cdef pack sums[12]
    cdef const real* a = b.entries + first
    cdef const real* at
    cdef Py_ssize_t p, j
    cdef int i
    for i in range(packs):
        sums[i] = EMPTY_PACK
    for p in range(b.count):
        at = x + parts * b.paths[p].column + first
        for j in range(b.taps):
            for i in range(packs):
                if parts == 1:
                    sums[i] = sums[i] + (<const pack*> a)[i] * (<const pack*> at)[i]
                else:
                    add_complex(1, (<const pack*> a)[i], (<const pack*> at)[i], &sums[i])
            a, at = a + parts * b.rows, at + x_step
    for i in range(packs):
        (<pack*> (y + first))[i] = sums[i]


cdef inline inlined add_entry(int sign, const real* a, const real* x, real* y) noexcept nogil:
    """``y += a * x`` of complex numbers, by the conjugate of a if `sign` is -1; rounded as `add_complex` does."""
    cdef real* im = y + 1
    KEEP_ADDRESS(im)  # of both together, GCC would round products and sums by themselves
    y[0] = (y[0] + a[0] * x[0]) - sign * a[1] * x[1]
    im[0] = (im[0] + a[0] * x[1]) + sign * a[1] * x[0]


cdef inline inlined add_diagonal(
    int parts, int sign, Py_ssize_t rows, const real* a, const real* x, real* y
) noexcept nogil:
    """``y += a * x`` along some of a diagonal; by the conjugate of a if `sign` is -1."""
    cdef Py_ssize_t t = 0
    if parts == 1:
        while t + PACK <= rows:
            (<pack*> (y + t))[0] = (<pack*> (y + t))[0] + (<const pack*> (a + t))[0] * (<const pack*> (x + t))[0]
            t += PACK
        if PACK > 2 and t + PACK // 2 <= rows:
            (<half*> (y + t))[0] = (<half*> (y + t))[0] + (<const half*> (a + t))[0] * (<const half*> (x + t))[0]
            t += PACK // 2
        for t in range(t, rows):
            y[t] = y[t] + a[t] * x[t]
        return
    if PACK > 1:
        while t + PACK // 2 <= rows:
            add_complex(sign, (<const pack*> (a + 2 * t))[0], (<const pack*> (x + 2 * t))[0], <pack*> (y + 2 * t))
            t += PACK // 2
    for t in range(t, rows):
        add_entry(sign, a + 2 * t, x + 2 * t, y + 2 * t)


cdef inline inlined add_complex(int sign, pack a, pack x, pack* y) noexcept nogil:
    y[0] = (y[0] + pairs_of(a, 0, 0) * x) + pairs_of(a, 1, 1) * i_times(x, sign)

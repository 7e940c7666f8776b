# The adjoint in the weights: the same products, summed over positions.
#
#     w[c, d, k]  =  sum over i of  x[c, i] * y[d, i*stride + k*dilation - low]
#
# Both arrays lie in planes, flat, padded with zeros, their phases apart, so that a tap of a channel of y is a *column*:
# a place at which y begins.  The sums of some rows (channels of x) by some columns live in registers, a vector for
# each of which every lane sums its own positions:
#
#     x   row 0     [ positions ----> ]          a run of positions is read a vector at a time, from M rows
#         row 1     [ positions ----> ]          and N columns, for M*N multiplications; the lanes are added
#     y   column 0     [ positions ----> ]       up after the last run
#         column 1        [ positions ----> ]
#
# Where multiplications are saved (`cytconv._winograd`), the planes of both arrays are sums, each of those of x meets
# some of those of y, and the weights are made of the results at the end.
#
# A task owns some channels of either side and one share of the positions; the shares are few, their number depends on
# the geometry alone, and they are added up in order.  x is read where it is, if runs of its samples are whole vectors;
# or, where several tasks read the same planes of it, these are packed once, before all tasks.

cdef extern from *:
    """
    #ifdef __GNUC__
      static inline __attribute__((always_inline)) void dot(
          int, int, Py_ssize_t, const Segment *, Py_ssize_t, const real *, const Py_ssize_t *, const real *,
          const Py_ssize_t *, real *, Ahead *);
    #endif

    /* The sums over the lanes of n vectors, by halves: two vectors become one that holds both, half as wide each.

           a a a a   b b b b   c c c c   d d d d
           a a b b             c c d d
           a b c d
    */
    #if SHUFFLES
      #define HALF_OF(j, half, other) \\
          ((2 * ((j) / (half)) * (half) + (j) % (half) + (other) * (half)) % (2 * (int) LANES))
      #define LOWER_HALF(j, half) HALF_OF(j, half, 0)
      #define UPPER_HALF(j, half) HALF_OF(j, half, 1)
      #define HALVE(half) \\
          for (int i = 0; i < n && half < (int) LANES; i += 2) { \\
              vec a = v[i], b = i + 1 < n ? v[i + 1] : ZEROS; \\
              v[i / 2] = PICK(a, b, LOWER_HALF, half) + PICK(a, b, UPPER_HALF, half); \\
          } \\
          if (half < (int) LANES) n = (n + 1) / 2;
      static inline __attribute__((always_inline)) void add_lanes(int n, vec *v, real *sums) {
          HALVE(8)
          HALVE(4)
          HALVE(2)
          HALVE(1)
          for (int i = 0; i < n; i++) ((vec *) sums)[i] = v[i];
      }
    #else
      static inline void add_lanes(int n, vec *v, real *sums) {
          for (int i = 0; i < n; i++) {
              real total = 0;
              for (int j = 0; j < (int) LANES; j++) total += ((real *) &v[i])[j];
              sums[i] = total;
          }
      }
    #endif
    """
    void add_lanes(int n, vec* v, real* sums) noexcept nogil


cdef inline void dot "dot" (
    int M, int N, Py_ssize_t tiles, const Segment* runs, Py_ssize_t count, const real* x, const Py_ssize_t* rows,
    const real* y, const Py_ssize_t* columns, real* sums, Ahead* ahead,
) noexcept nogil:
    """``sums[tile, n, m] = sum of x[rows[m] + a + p] * y[columns[tile, n] + b + p]`` over the n vectors of each run."""
    # In two halves: GCC unrolls no loop of more than 16 rounds, and these must be, see `tile`.
    cdef vec low[12]
    cdef vec high[12]
    cdef vec xv[6]
    cdef vec yv = ZEROS
    cdef const real* xp[6]
    cdef const real* yp[8]
    cdef Py_ssize_t s, k, p
    cdef int i
    for _ in range(tiles):
        if ahead.lines > 0:
            fetch_ahead(ahead)
        for i in range(M * N // 2):
            low[i] = ZEROS
        for i in range(M * N // 2):
            high[i] = ZEROS
        for s in range(count):
            for i in range(M):
                xp[i] = x + rows[i] + runs[s].a
            for i in range(N):
                yp[i] = y + columns[i] + runs[s].b
            p = 0
            for k in range(runs[s].n):
                for i in range(M):
                    xv[i] = (<const vec*> (xp[i] + p))[0]
                for i in range(M * N // 2):
                    if i % M == 0:
                        yv = (<const vec*> (yp[i // M] + p))[0]
                        IN_REGISTER(yv)
                    low[i] = low[i] + xv[i % M] * yv
                for i in range(M * N // 2):
                    if i % M == 0:
                        yv = (<const vec*> (yp[N // 2 + i // M] + p))[0]
                        IN_REGISTER(yv)
                    high[i] = high[i] + xv[i % M] * yv
                p += LANES
        add_lanes(M * N // 2, low, sums)
        add_lanes(M * N // 2, high, sums + M * N // 2)
        columns += N
        sums += M * N


# The tiles there are, by their rows.

cdef inline int dot_columns_of(int rows) noexcept nogil:
    return 4 if rows == 6 or rows == 3 else 6 if rows == 2 else 8


cdef void dot_tiles(
    int M, Py_ssize_t tiles, const Segment* runs, Py_ssize_t count, const real* x, const Py_ssize_t* rows,
    const real* y, const Py_ssize_t* columns, real* sums, Ahead* ahead,
) noexcept nogil:
    if M == 6:
        dot(6, 4, tiles, runs, count, x, rows, y, columns, sums, ahead)
    elif M == 3:
        dot(3, 4, tiles, runs, count, x, rows, y, columns, sums, ahead)
    elif M == 2:
        dot(2, 6, tiles, runs, count, x, rows, y, columns, sums, ahead)
    else:
        dot(1, 8, tiles, runs, count, x, rows, y, columns, sums, ahead)


cdef inline void add_line(const real* line, Py_ssize_t n, bint accumulate, real* to) noexcept nogil:
    cdef Py_ssize_t j
    if accumulate:
        for j in range(n):
            to[j] += line[j]
    else:
        for j in range(n):
            to[j] = line[j]


cdef void join_parts(
    const real* sums, Py_ssize_t channels, Py_ssize_t taps, Py_ssize_t channel_step, Py_ssize_t tap_step,
    Py_ssize_t part_step, real* w,
) noexcept nogil:
    """Complex weights from the products of parts, each real channel of y having its own; the steps are those of the
    sums, `part_step` from what the real parts of x were multiplied with to the same of the imaginary ones."""
    cdef const real* p
    cdef Py_ssize_t d, j
    # conj(x)*y = (re x * re y + im x * im y) + 1j*(re x * im y - im x * re y)
    for d in range(channels // 2):
        for j in range(taps):
            p = sums + 2 * d * channel_step + j * tap_step
            w[2 * (d * taps + j)] = p[0] + p[part_step + channel_step]
            w[2 * (d * taps + j) + 1] = p[channel_step] - p[part_step]


@final
cdef class WeightAdjoint:
    """The tables of `cytconv._weights.weight_adjoint`, read only; strides and offsets count elements."""

    cdef Planes x, y
    cdef Sums x_sums, y_sums, w_sums  # or None
    cdef int rows, parts
    cdef bint mixed, few  # whether planes and taps are sums, whether some taps meet no sample,
    cdef readonly bint x_in_place  # and whether x is read where it is
    cdef Py_ssize_t dims, boxes, shares, taps, sums, x_block, y_block, x_groups, y_groups, x_size, y_size, groups
    cdef Py_ssize_t row_step, channel_step, x_plane, x_phase, x_shared, line_size, columns_size
    cdef Py_ssize_t sample_size, samples_size
    cdef readonly Py_ssize_t scratch_size
    cdef const Py_ssize_t[::1] box, counts, x_padded, y_padded, runs, columns, places, class_taps, class_column
    cdef const Py_ssize_t[::1] class_consecutive

    def __init__(self, Planes x, Planes y, Sums x_sums, Sums y_sums, Sums w_sums, **tables):
        self.x, self.y = x, y
        self.x_sums, self.y_sums, self.w_sums = x_sums, y_sums, w_sums
        self.mixed = w_sums is not None
        self.parts = tables["parts"]  # 2 if neighbouring channels are the parts of complex numbers
        self.rows, self.taps = tables["rows"], tables["taps"]
        self.sums = tables["sums"]  # for each pair of channels: the taps, or sums that make them up
        self.few = tables["few"]
        self.box, self.counts = tables["box"], tables["counts"]
        self.x_padded, self.y_padded = tables["x_padded"], tables["y_padded"]
        self.runs = tables["runs"].ravel()  # `Segment`s: where in x, where in y, how many vectors
        # A class is what meets one plane of x: where in the planes of y each tap of each of its channels in a task
        # begins, and its place in a row of the sums.
        self.columns, self.places = tables["columns"], tables["places"]
        self.class_taps, self.class_column = tables["class_taps"], tables["class_column"]
        self.class_consecutive = tables["class_consecutive"]  # whether the places are, too
        self.row_step, self.channel_step = tables["row_step"], tables["channel_step"]
        self.shares, self.boxes, self.groups = tables["shares"], tables["boxes"], tables["groups"]
        self.x_block, self.y_block = tables["x_block"], tables["y_block"]  # channels in a task
        self.x_groups = (x.channels + self.x_block - 1) // self.x_block
        self.y_groups = (y.channels + self.y_block - 1) // self.y_block
        self.dims = self.box.shape[0]
        self.x_plane, self.x_phase = tables["x_plane"], tables["x_phase"]
        # Numbers of all planes of x in one box, if tasks share them.
        self.x_shared = x.channels * tables["x_planes"] * self.x_plane if tables["shared"] else 0
        self.x_in_place = tables["x_in_place"]
        self.x_size = 0 if self.x_shared or self.x_in_place else self.x_block * tables["x_planes"] * self.x_plane
        # The last vector of a run may reach past its end.
        self.y_size = self.y_block * tables["y_planes"] * tables["y_plane"] + LANES
        # Samples of one channel, and of some, whose sums the planes are.
        self.sample_size = max(x.phases * self.x_plane, (y.phases + 1) * tables["y_plane"]) if self.mixed else 0
        self.samples_size = max(x.together, y.together) * self.sample_size
        # The planes, the sums of a row of tiles in two orders, the taps of a row of weights.
        self.columns_size = self.columns.shape[0] + LANES
        self.line_size = 0 if not self.mixed else self.parts * w_sums.lines * w_sums.pitch
        self.scratch_size = self.samples_size + self.x_size + self.y_size
        self.scratch_size += 2 * self.columns_size * self.rows + LANES + self.line_size

    def run(self, x, y, w, Py_ssize_t tasks, int workers):
        """Fill the contiguous ``w[group, channel of x, channel of y, tap]``; returns whether all of it is finite."""
        cdef Place from_x = Place(x), from_y = Place(y), to = Place(w, True)
        cdef Py_ssize_t size = self.groups * self.x.channels * self.y.channels * self.sums
        cdef bint in_place = self.shares == 1 and self.parts == 1 and not self.mixed
        cdef Py_ssize_t t, infinite = 0, rows = self.groups * self.x.channels // self.parts
        cdef Memory scratch = Memory(workers * self.scratch_size)
        cdef Memory planes_x = Memory(self.groups * self.boxes * self.x_shared)
        cdef Py_ssize_t packs = self.groups * self.boxes * ceil_div(self.x.channels, self.x.together)
        cdef Memory shares = Memory(0 if in_place else self.shares * size + LANES)
        cdef real* memory = scratch.first
        cdef real* sums = to.first if in_place else shares.first
        with nogil:
            if self.few:
                memset(sums, 0, self.shares * size * sizeof(real))
            # What nobody writes to is multiplied, too.
            if workers == 1:
                memset(memory, 0, self.scratch_size * sizeof(real))
                for t in range(packs if self.x_shared else 0):
                    self.share_x(t, from_x.first, planes_x.first, memory)
                for t in range(tasks):
                    self.task(t, from_x.first, planes_x.first, from_y.first, sums, memory)
                for t in range(rows):
                    infinite += not self.finish(t, sums, to.first, memory)
            else:
                for t in prange(workers, schedule="static", chunksize=1, num_threads=workers):
                    memset(memory + t * self.scratch_size, 0, self.scratch_size * sizeof(real))
                for t in prange(packs if self.x_shared else 0, schedule="static", num_threads=workers):
                    self.share_x(t, from_x.first, planes_x.first, memory + thread_number() * self.scratch_size)
                for t in prange(tasks, schedule="dynamic", num_threads=workers):
                    self.task(
                        t, from_x.first, planes_x.first, from_y.first, sums,
                        memory + thread_number() * self.scratch_size,
                    )
                for t in prange(rows, schedule="static", num_threads=workers):
                    infinite += not self.finish(t, sums, to.first, memory + thread_number() * self.scratch_size)
        return infinite == 0

    cdef bint finish(self, Py_ssize_t row, real* sums, real* w, real* scratch) noexcept nogil:
        """The weights of one channel of x from its sums in all shares; tells whether they are finite."""
        cdef Py_ssize_t channels = self.y.channels, length = channels * self.taps
        cdef Py_ssize_t step = self.groups * self.x.channels * channels * self.sums  # from one share to the next
        cdef Py_ssize_t rows = self.x.channels // self.parts
        cdef Py_ssize_t stretch = self.parts * self.row_step, stretches = 1, pitch = 0, t, share, part, d, j
        cdef Py_ssize_t channel_step = self.taps, tap_step = 1, part_step = length
        cdef real* total = sums + row // rows * self.x.channels * channels * self.sums + row % rows * stretch
        if self.mixed:
            stretches, pitch = self.sums, self.x.channels * channels
        for t in range(stretches):
            for share in range(1, self.shares):
                for j in range(t * pitch, t * pitch + stretch):
                    total[j] += total[share * step + j]
        if self.mixed:
            for part in range(self.parts):
                self.w_sums.add(total + part * self.row_step, scratch + part * self.w_sums.lines * self.w_sums.pitch)
            total = scratch
            channel_step, tap_step, part_step = 1, self.w_sums.pitch, self.w_sums.lines * self.w_sums.pitch
        w += row * length
        if self.parts == 2:
            join_parts(total, channels, self.taps, channel_step, tap_step, part_step, w)
        elif self.mixed:
            for d in range(channels):
                for j in range(self.taps):
                    w[d * self.taps + j] = total[d + j * tap_step]
        elif total != w:
            memcpy(w, total, length * sizeof(real))
        return all_finite(w, length)

    cdef void pack(
        self, Planes planes, Sums sums, const real* array, Py_ssize_t first, Py_ssize_t channels,
        const Py_ssize_t* at, const Py_ssize_t* n, const Py_ssize_t* limit, real* samples, real* to,
    ) noexcept nogil:
        cdef Py_ssize_t c = 0, i, count
        if not self.mixed:
            planes.pack(array, first, channels, at, n, limit, to, planes.channel_pitch)
            return
        while c < channels:
            count = min(planes.together, channels - c)
            planes.pack(array, first + c, count, at, n, limit, samples, self.sample_size)
            for i in range(count):
                sums.add(samples + i * self.sample_size, to + (c + i) * planes.channel_pitch)
            c += count

    cdef void share_x(self, Py_ssize_t t, const real* x, real* planes, real* samples) noexcept nogil:
        """Pack some channels of a box of x, for all tasks."""
        cdef Py_ssize_t at[MAX_DIMS]
        cdef Py_ssize_t blocks = ceil_div(self.x.channels, self.x.together), c = t % blocks * self.x.together
        cdef Py_ssize_t count = min(self.x.together, self.x.channels - c), box = t // blocks % self.boxes
        cdef Py_ssize_t group = t // (blocks * self.boxes), plane
        planes += (group * self.boxes + box) * self.x_shared + c * self.x_plane
        for plane in range(self.x_shared // self.x_phase):
            memset(planes + plane * self.x_phase, 0, count * self.x_plane * sizeof(real))
        self.place(box, at)
        self.pack(
            self.x, self.x_sums, x + group * self.x.group, c, count, at, &self.x_padded[0], &self.box[0], samples,
            planes,
        )

    cdef void place(self, Py_ssize_t box, Py_ssize_t* at) noexcept nogil:
        """Where a box begins."""
        cdef Py_ssize_t d
        for d in range(self.dims - 1, -1, -1):
            at[d] = box % self.counts[d] * self.box[d]
            box = box // self.counts[d]

    cdef void task(
        self, Py_ssize_t t, const real* x, real* shared_x, const real* y, real* sums, real* scratch,
    ) noexcept nogil:
        """The sums of some channels on either side over one share of the boxes."""
        cdef Py_ssize_t first_x = t % self.x_groups * self.x_block
        cdef Py_ssize_t first_y = t // self.x_groups % self.y_groups * self.y_block
        cdef Py_ssize_t outer = t // (self.x_groups * self.y_groups)  # group of channels and share
        cdef Py_ssize_t share = outer % self.shares
        cdef Py_ssize_t group = outer // self.shares
        cdef Py_ssize_t count_x = min(self.x_block, self.x.channels - first_x)
        cdef Py_ssize_t count_y = min(self.y_block, self.y.channels - first_y)
        cdef Py_ssize_t box, begin = share * self.boxes // self.shares
        cdef Py_ssize_t end = (share + 1) * self.boxes // self.shares
        cdef Py_ssize_t c, panel, row, i, j, valid, count, tiles, panels = (count_x + self.rows - 1) // self.rows
        cdef Ahead ahead
        cdef Py_ssize_t at[MAX_DIMS]
        cdef Py_ssize_t rows[6]
        cdef const Py_ssize_t* places
        cdef real* planes_x
        cdef real* packed_x = scratch + self.samples_size
        cdef real* planes_y = packed_x + self.x_size
        cdef real* tile_sums = planes_y + self.y_size
        cdef real* lines = tile_sums + self.columns_size * self.rows
        cdef real* line
        cdef real* to
        cdef bint dealt
        sums += (share * self.groups + group) * self.x.channels * self.y.channels * self.sums
        sums += first_x * self.row_step + first_y * self.channel_step
        for box in range(begin, end):
            self.place(box, at)
            # x is zero outside of the box, so that it does not matter what y is there.
            if self.x_in_place:
                planes_x = <real*> x + group * self.x.group + first_x * self.x_plane
                for i in range(self.dims):
                    planes_x += at[i] * self.x.step[i]
            elif self.x_shared:
                planes_x = shared_x + (group * self.boxes + box) * self.x_shared + first_x * self.x_plane
            else:
                self.pack(
                    self.x, self.x_sums, x + group * self.x.group, first_x, count_x, at, &self.x_padded[0],
                    &self.box[0], scratch, packed_x,
                )
                planes_x = packed_x
            self.pack(
                self.y, self.y_sums, y + group * self.y.group, first_y, count_y, at, &self.y_padded[0],
                &self.y_padded[0], scratch, planes_y,
            )
            ahead.lines = 0
            if box + 1 < end and self.y.fetches:
                self.place(box + 1, at)
                self.y.look_ahead(&ahead, y + group * self.y.group, first_y, count_y, at, &self.y_padded[0])
                tiles = 0
                for c in range(self.class_taps.shape[0]):
                    tiles += (count_y * self.class_taps[c] - 1) // dot_columns_of(self.rows) + 1
                ahead.each = (ahead.lines - 1) // max(1, tiles * panels) + 1
            for c in range(self.class_taps.shape[0]):
                count = count_y * self.class_taps[c]
                tiles = (count + dot_columns_of(self.rows) - 1) // dot_columns_of(self.rows)
                places = &self.places[self.class_column[c]]
                for panel in range(panels):
                    row = panel * self.rows
                    valid = min(self.rows, count_x - row)
                    for i in range(self.rows):
                        rows[i] = c * self.x_phase + (row + min(i, valid - 1)) * self.x_plane
                    dot_tiles(
                        self.rows, tiles, <const Segment*> &self.runs[0], self.runs.shape[0] // 3, planes_x, rows,
                        planes_y, &self.columns[self.class_column[c]], tile_sums, &ahead,
                    )
                    if self.class_consecutive[c]:
                        dealt = deal_line(self.rows, tile_sums, count, lines, self.columns_size)
                        for i in range(valid):
                            line = lines + i * self.columns_size
                            if not dealt:
                                for j in range(count):
                                    line[j] = tile_sums[j * self.rows + i]
                            add_line(line, count, box > begin, sums + (row + i) * self.row_step + places[0])
                    else:
                        for i in range(valid):
                            to = sums + (row + i) * self.row_step
                            if box > begin:
                                for j in range(count):
                                    to[places[j]] += tile_sums[j * self.rows + i]
                            else:
                                for j in range(count):
                                    to[places[j]] = tile_sums[j * self.rows + i]

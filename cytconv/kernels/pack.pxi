# Small pieces that bring numbers into the order in which the tiles read them.

cdef enum:
    MAX_PHASES = 16  # that are taken apart together


cdef inline void copy_line(const real* source, Py_ssize_t step, Py_ssize_t n, real* line) noexcept nogil:
    """``line[j] = source[j*step]``; the literal steps let the compiler load vectors and shuffle."""
    cdef Py_ssize_t j
    if step == 1:
        for j in range(n):
            line[j] = source[j]
    elif step == 2:
        for j in range(n):
            line[j] = source[j * 2]
    elif step == 4:
        for j in range(n):
            line[j] = source[j * 4]
    elif step == 8:
        for j in range(n):
            line[j] = source[j * 8]
    else:
        for j in range(n):
            line[j] = source[j * step]


cdef inline void clear_rows(Py_ssize_t n, Py_ssize_t rows, real* to, Py_ssize_t pitch) noexcept nogil:
    cdef Py_ssize_t row
    if n == pitch:
        memset(to, 0, rows * n * sizeof(real))
    else:
        for row in range(rows):
            memset(to + row * pitch, 0, n * sizeof(real))


cdef inline void clear_margin(Py_ssize_t n, real* to) noexcept nogil:
    """n zeros, or a vector of them if it is fewer: whoever calls this writes to what comes next later."""
    if n > LANES:
        memset(to, 0, n * sizeof(real))
    elif n > 0:
        (<vec*> to)[0] = ZEROS


@final
cdef class Planes:
    """An array as flat planes, one for each channel and phase, a box of positions at a time; see `cytconv._boxes`.

    Strides and offsets count elements.  There is a vector to spare between the end of a plane and the next one.
    """

    cdef Py_ssize_t dims, phases, channels, group
    cdef Py_ssize_t channel_pitch, phase_pitch  # from one plane to that of the next channel, of the next phase
    cdef const Py_ssize_t[::1] step, pitch  # from one position to the next, in the array and in a plane
    cdef const Py_ssize_t[::1] channel, start, valid  # where channels and phases begin; positions that a phase has
    cdef Py_ssize_t[::1] leads  # where the phases begin that are the first of their neighbours,
    cdef Py_ssize_t lines  # and how many these are
    cdef bint fetches  # whether what is packed soon is fetched ahead
    cdef Py_ssize_t together  # channels that are best packed at once: more than one if they follow each other

    def __init__(self, **tables):
        self.step, self.pitch = tables["step"], tables["pitch"]
        self.channel_pitch, self.phase_pitch = tables["channel_pitch"], tables["phase_pitch"]
        self.channel, self.start, self.valid = tables["channel"], tables["start"], tables["valid"]
        self.group, self.fetches = tables["group"], tables["fetches"]
        self.dims, self.channels, self.phases = self.step.shape[0], self.channel.shape[0], self.start.shape[0]
        self.leads = cvarray(
            shape=(max(1, self.phases),), itemsize=sizeof(Py_ssize_t), format="q" if sizeof(Py_ssize_t) == 8 else "i",
        )
        cdef Py_ssize_t phase = 0, c
        self.together = LANES if SHUFFLES and self.channels >= TRANSPOSED else 1
        for c in range(1, self.channels):
            if self.channel[c] != self.channel[c - 1] + 1:
                self.together = 1
        self.lines = 0
        while phase < self.phases:
            self.leads[self.lines] = self.start[phase]
            self.lines += 1
            phase += self.neighbours(phase)

    cdef void look_ahead(
        self, Ahead* ahead, const real* source, Py_ssize_t first, Py_ssize_t channels, const Py_ssize_t* at,
        const Py_ssize_t* n,
    ) noexcept nogil:
        """Note which lines `pack` is going to read."""
        cdef Py_ssize_t d
        ahead.source, ahead.channel = source, &self.channel[first]
        ahead.phase, ahead.step = &self.leads[0], &self.step[0]
        ahead.dims, ahead.phases, ahead.phases_left = self.dims, self.lines, self.lines
        ahead.channels = PER_LINE if self.together > 1 else 1
        ahead.lines = (channels + ahead.channels - 1) // ahead.channels * ahead.phases
        for d in range(self.dims):
            ahead.source += at[d] * self.step[d]
            ahead.n[d], ahead.at[d] = n[d], 0
            if d < self.dims - 1:
                ahead.lines *= n[d]

    cdef Py_ssize_t neighbours(self, Py_ssize_t phase) noexcept nogil:
        """How many phases from this one on lie between each other, so that they make up a line together."""
        cdef Py_ssize_t n, d, last = 2 * (self.dims - 1), step = self.step[self.dims - 1]
        cdef const Py_ssize_t* valid = &self.valid[phase * (last + 2)]
        cdef const Py_ssize_t* other = valid
        for n in range(1, min(step, MAX_PHASES, self.phases - phase)):
            other += last + 2
            if self.start[phase + n] != self.start[phase] + n:
                return n
            for d in range(last):
                if other[d] != valid[d]:
                    return n
            # Within a line, positions of phases begin (and end) at the same one or, from some phase on, one earlier.
            # Where they do not, this phase is the first of another line.
            for d in range(last, last + 2):
                if not valid[d] - 1 <= other[d] <= other[d - last - 2]:
                    return n
        return max(1, min(step, MAX_PHASES, self.phases - phase))

    cdef void pack(
        self, const real* source, Py_ssize_t first, Py_ssize_t channels, const Py_ssize_t* at, const Py_ssize_t* n,
        const Py_ssize_t* limit, real* planes, Py_ssize_t channel_pitch,
    ) noexcept nogil:
        """Copy n positions from `at` on, of some channels; zero outside of the array, and from `limit` on."""
        cdef Py_ssize_t last = self.dims - 1
        cdef Py_ssize_t step = self.step[last] if self.step[last] > 0 else -self.step[last]
        cdef Py_ssize_t phase, together, f, d, times = 1
        cdef Py_ssize_t low[MAX_PHASES]
        cdef Py_ssize_t high[MAX_PHASES]
        cdef Py_ssize_t e[MAX_DIMS]
        cdef Margins slice
        cdef Rows rows
        cdef const Py_ssize_t* valid
        rows.channel, rows.channels, rows.channel_pitch = &self.channel[first], channels, channel_pitch
        rows.n, rows.plane_pitch = n[last], self.phase_pitch
        # What is wanted next is too far away for the CPU to expect it: the same line of the next channel, or a line
        # some rows on; but in long lines some CPUs do.
        rows.ahead = 0
        if first + channels < self.channels:
            rows.ahead = self.channel[first + channels] - self.channel[first + channels - 1]
        elif last > 0 and (self.fetches or n[last] * step < PAGE):
            rows.ahead = 12 * self.step[last - 1]
        for d in range(last - 2):
            times *= n[d]
        phase = 0
        while phase < self.phases:
            together = self.neighbours(phase)
            rows.low, rows.high = n[last] * step, 0
            for f in range(together):
                # Of each phase, the positions that there are; of a line, the numbers.
                valid = &self.valid[((phase + f) * self.dims + last) * 2]
                low[f] = min(max(valid[0] - at[last], 0), n[last])
                high[f] = max(min(min(valid[1] - at[last], limit[last]), n[last]), low[f])
                if low[f] < high[f]:
                    rows.low, rows.high = min(rows.low, low[f] * step + f), max(rows.high, (high[f] - 1) * step + f + 1)
            valid = &self.valid[phase * self.dims * 2]
            rows.row, slice = self.margins(last - 1, valid, at, n, limit), self.margins(last - 2, valid, at, n, limit)
            for d in range(last - 2):
                e[d] = 0
            for _ in range(times):
                rows.line, rows.to = source + self.start[phase], planes + phase * self.phase_pitch
                rows.slice = slice
                for d in range(self.dims):
                    rows.line += at[d] * self.step[d]
                for d in range(last - 2):
                    rows.line += e[d] * self.step[d]
                    rows.to += e[d] * self.pitch[d]
                    if not valid[2 * d] - at[d] <= e[d] < min(valid[2 * d + 1] - at[d], limit[d]):
                        rows.slice.low = rows.slice.high = 0
                self.fill(&rows, together, low, high)
                advance(last - 2, n, e)
            phase += together

    cdef Margins margins(
        self, Py_ssize_t d, const Py_ssize_t* valid, const Py_ssize_t* at, const Py_ssize_t* n, const Py_ssize_t* limit,
    ) noexcept nogil:
        """Of a dim, those positions of a box that are in the array; one if there is no such dim."""
        cdef Margins m
        m.low, m.high, m.size, m.step, m.pitch = 0, 1, 1, 0, 0
        if d >= 0:
            m.low = min(max(valid[2 * d] - at[d], 0), n[d])
            m.high = max(min(min(valid[2 * d + 1] - at[d], limit[d]), n[d]), m.low)
            m.size, m.step, m.pitch = n[d], self.step[d], self.pitch[d]
        return m

    cdef void fill(
        self, const Rows* rows, Py_ssize_t phases, const Py_ssize_t* low, const Py_ssize_t* high,
    ) noexcept nogil:
        """Slices of rows of some channels, of phases that lie between each other or of one; in the array as told."""
        #      slice   0 0 0 0 0 0 0 0 0 0        row.low
        #              0 0 s s s s s s 0 0
        #              0 0 s s s s s s 0 0
        #              0 0 0 0 0 0 0 0 0 0        row.high
        #                  low         high
        cdef Py_ssize_t step = self.step[self.dims - 1], n = rows.n, c, s, i, f, ahead
        cdef Margins row = rows.row
        cdef const real* line
        cdef real* to
        cdef real* plane
        cdef bint together = phases == step == 1 and row.step == row.pitch == n and low[0] == 0 and high[0] == n
        if self.together > 1 and phases == 1 and rows.channels > 1:
            deal_channels(self.step[self.dims - 1], low[0], high[0], rows)
            return
        if not together and deal_rows(phases, step, rows):
            return
        for c in range(rows.channels):
            ahead = rows.channel[c + 1] - rows.channel[c] if c + 1 < rows.channels else rows.ahead
            for s in range(rows.slice.size):
                line = rows.line + rows.channel[c] + s * rows.slice.step
                to = rows.to + c * rows.channel_pitch + s * rows.slice.pitch
                if not rows.slice.low <= s < rows.slice.high:
                    for f in range(phases):
                        clear_rows(n, row.size, to + f * self.phase_pitch, row.pitch)
                elif together:  # rows follow each other, here and there
                    if ahead:
                        fetch_line(line + ahead, 1, row.low * n, row.high * n)
                    memset(to, 0, row.low * n * sizeof(real))
                    memcpy(to + row.low * n, line + row.low * n, (row.high - row.low) * n * sizeof(real))
                    memset(to + row.high * n, 0, (row.size - row.high) * n * sizeof(real))
                else:
                    for i in range(row.size):
                        for f in range(phases):
                            plane = to + f * self.phase_pitch
                            if row.low <= i < row.high:
                                if f == 0 and ahead:
                                    fetch_line(line + ahead, step, low[0], high[0])
                                clear_margin(low[f], plane)
                                copy_line(line + f + low[f] * step, step, high[f] - low[f], plane + low[f])
                                clear_margin(n - high[f], plane + high[f])
                            else:
                                memset(plane, 0, n * sizeof(real))
                        line += row.step
                        to += row.pitch


cdef inline bint all_finite(const real* numbers, Py_ssize_t n) noexcept nogil:
    """Whether none is infinite or NaN: those times zero are NaN, and stay it in a sum."""
    cdef vec checks[4]
    cdef Py_ssize_t j = 0
    cdef int i
    cdef real check = 0
    for i in range(4):
        checks[i] = ZEROS
    while j + 4 * LANES <= n:
        for i in range(4):
            checks[i] = checks[i] + (<const vec*> (numbers + j + i * LANES))[0] * ZEROS
        j += 4 * LANES
    for i in range(<int> (4 * LANES)):
        check += (<real*> checks)[i]
    while j < n:
        check += numbers[j] * 0
        j += 1
    return check == 0


cdef inline void add_lines(
    const Py_ssize_t* place, const real* factor, Py_ssize_t terms, const real* source, Py_ssize_t vectors, real* to,
    vec* check,
) noexcept nogil:
    """``to = sum over t of factor[t] * source[place[t]:]``; `check` turns NaN where a sum is not finite."""
    cdef vec sums[4]
    cdef vec checks[4]
    cdef Py_ssize_t t, p = 0
    cdef int i
    for i in range(4):
        checks[i] = ZEROS
    for _ in range(vectors // 4):
        for i in range(4):
            sums[i] = (<const vec*> (source + place[0] + p))[i] * factor[0]
        for t in range(1, terms):
            for i in range(4):
                sums[i] = sums[i] + (<const vec*> (source + place[t] + p))[i] * factor[t]
        for i in range(4):
            (<vec*> (to + p))[i] = sums[i]
        for i in range(4):
            checks[i] = checks[i] + sums[i] * ZEROS
        p += 4 * LANES
    for _ in range(vectors % 4):
        sums[0] = (<const vec*> (source + place[0] + p))[0] * factor[0]
        for t in range(1, terms):
            sums[0] = sums[0] + (<const vec*> (source + place[t] + p))[0] * factor[t]
        (<vec*> (to + p))[0] = sums[0]
        checks[0] = checks[0] + sums[0] * ZEROS
        p += LANES
    for i in range(4):
        check[0] = check[0] + checks[i]


@final
cdef class Sums:
    """Lines that are sums of others: a sparse matrix times lines."""

    cdef readonly Py_ssize_t lines  # that result
    cdef const Py_ssize_t[::1] start  # of the terms of each
    cdef Py_ssize_t[::1] place  # of the line that is a term
    cdef real[::1] factor
    cdef Py_ssize_t vectors, pitch  # of a line, from one line to the next

    def __init__(self, start, terms, factors, places, Py_ssize_t length, Py_ssize_t pitch):
        """Line t of the source begins at ``places[t]``; lines have so many numbers, at least."""
        cdef Py_ssize_t t
        self.start, self.lines = start, start.shape[0] - 1
        self.place = places[terms]
        self.factor = cvarray(shape=(max(1, terms.shape[0]),), itemsize=sizeof(real), format=REAL)
        for t in range(terms.shape[0]):
            self.factor[t] = factors[t]
        self.vectors, self.pitch = (length + LANES - 1) // LANES, pitch

    cdef bint add(self, const real* source, real* to) noexcept nogil:
        """Tells whether all sums are finite."""
        cdef Py_ssize_t i, first, n
        cdef vec check = ZEROS
        for i in range(self.lines):
            first, n = self.start[i], self.start[i + 1] - self.start[i]
            if n:
                add_lines(&self.place[first], &self.factor[first], n, source, self.vectors, to + i * self.pitch, &check)
            else:
                memset(to + i * self.pitch, 0, self.vectors * LANES * sizeof(real))
        return all_finite(<const real*> &check, LANES)


cdef inline void pack_rows(
    int rows, const real* w, const Py_ssize_t* row, const Py_ssize_t* product, const Py_ssize_t* place, Py_ssize_t n,
    real* panel,
) noexcept nogil:
    cdef Py_ssize_t k
    cdef Py_ssize_t of[6]
    cdef int i
    cdef bint neighbours = True
    cdef real held[6]
    for i in range(rows):
        of[i] = row[i]
        neighbours = neighbours and row[i] == row[0] + i
    if neighbours:
        w += row[0]
        for k in range(n):
            memcpy(panel + place[k], w + product[k], rows * sizeof(real))
    else:
        for k in range(n):
            for i in range(rows):
                held[i] = w[of[i] + product[k]]
            for i in range(rows):
                panel[place[k] + i] = held[i]


cdef inline void pack_panel(
    int rows, const real* w, const Py_ssize_t* row, const Py_ssize_t* product, const Py_ssize_t* place, Py_ssize_t n,
    real* panel,
) noexcept nogil:
    """``panel[place[k] + i] = w[row[i] + product[k]]``, the number of rows a literal for the compiler to unroll."""
    if rows == 6:
        pack_rows(6, w, row, product, place, n, panel)
    elif rows == 4:
        pack_rows(4, w, row, product, place, n, panel)
    elif rows == 3:
        pack_rows(3, w, row, product, place, n, panel)
    else:
        pack_rows(rows, w, row, product, place, n, panel)

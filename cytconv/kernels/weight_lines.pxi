# The adjoint in the weights of few channels, by lines that are read where they lie.
#
#     x    line     A B C D ...     deal    A B C D           sums of a lane each, for each read of the line
#                   S streams       --->                      and each pair of streams:
#     y    a row    P p Q q ...     deal    P Q R S
#                   R streams       --->    p q r s           acc[read, f, r] += x[f] * y[r]
#
# Where x and y are one stream each, neighbouring taps of the axis before the last are a *band*: a line of x that is
# loaded meets a row of y for each of them.
#
#     taps 0, 1      x line 0   meets   y row 0, row 1
#                    x line 1           y row 1, row 2
#
# Along a line of pixels (pixels.pxi), x has one stream; lanes are added up for all numbers, or for each by itself.
#
# The sums stay in registers along a line, and are added to those of earlier tasks at the end of each, so that not too
# many numbers are added up one by one; lanes are added up at the end of a share of the positions.

cdef extern from *:
    """
    #define MOST_SUMS (REGISTERS == 32 ? 16 : 12)  /* in registers, */
    #define MOST_READS 6  /* of so many reads */
    #define MOST_POSITIONS 64  /* of the outer axes in a task */
    #define MOST_TAPS 4  /* of a band */

    typedef struct {
        Py_ssize_t step, steps;
        const Mask *masks;  /* NULL if its vectors are whole */
    } Section;

    /* A line of x and a row of y, or as many as a band has taps, which meet at some positions of the outer axes. */
    typedef struct {
        const real *x[MOST_POSITIONS], *y[MOST_TAPS][MOST_POSITIONS];  /* where they begin */
        Py_ssize_t count, x_ahead, y_ahead;  /* how far away what comes next begins, 0 if nothing is to be fetched */
        const Py_ssize_t *reads;  /* where each read begins in x */
        Py_ssize_t reads_count;
        Py_ssize_t next;  /* from the sums of one tap of a band to those of the next */
        const Pixels *pixels;
    } Meeting;

    /* The positions of the outer axes that a task has. */
    typedef struct {
        Py_ssize_t count;
        Py_ssize_t e[MOST_POSITIONS][MAX_DIMS];
        const real *x[MOST_POSITIONS], *y[MOST_POSITIONS];  /* what places count from there */
        int row_exists[MOST_POSITIONS];
        int left[MOST_TAPS][MOST_POSITIONS];  /* whether a tap of the band is still to meet its line there */
    } Positions;

    LITERALS sum_products(int, int, int, int, int, int, const Meeting *, const Section *, Py_ssize_t, vec *);

    /* How many to do at once of so many that are left, and of so many at most: about as many each time. */
    static inline Py_ssize_t some_of(Py_ssize_t left, Py_ssize_t most) {
        Py_ssize_t turns = (left + most - 1) / most;
        return (left + turns - 1) / turns;
    }
    static inline Py_ssize_t next_reads(Py_ssize_t sums, Py_ssize_t left) {
        return some_of(left, MOST_SUMS / sums < MOST_READS ? MOST_SUMS / sums : MOST_READS);
    }

    /* `sum_products` with these numbers as literals, by the number of reads. */
    typedef void (*SumProducts)(const Meeting *, const Section *, Py_ssize_t, vec *);
    #define SUM_PRODUCTS(NAME, S, R, B, N, PIXELS) \\
        APART NAME##_##S##_##R##_##N(const Meeting *meeting, const Section *section, Py_ssize_t read, vec *sums) { \\
            if (S * R * B * N > MOST_SUMS) return;  /* `next_reads` never asks for so many */ \\
            if (section->masks) sum_products(S, R, B, N, PIXELS, 1, meeting, section, read, sums); \\
            else sum_products(S, R, B, N, PIXELS, 0, meeting, section, read, sums); \\
        }
    #define EACH_READS(NAME, S, R, B, PIXELS) \\
        SUM_PRODUCTS(NAME, S, R, B, 1, PIXELS) SUM_PRODUCTS(NAME, S, R, B, 2, PIXELS) \\
        SUM_PRODUCTS(NAME, S, R, B, 3, PIXELS) SUM_PRODUCTS(NAME, S, R, B, 4, PIXELS) \\
        SUM_PRODUCTS(NAME, S, R, B, 5, PIXELS) SUM_PRODUCTS(NAME, S, R, B, 6, PIXELS)
    #define PRODUCTS(S, R) EACH_READS(products, S, R, 1, 0)
    #define PRODUCTS_OF_PIXELS(R) EACH_READS(products_of_pixels, 1, R, 1, 1)
    EACH_READS(products_of_2, 1, 1, 2, 0)
    EACH_READS(products_of_3, 1, 1, 3, 0)
    EACH_READS(products_of_4, 1, 1, 4, 0)
    #define ALL_OF_PIXELS(CASE) CASE(1) CASE(2) CASE(3) CASE(4) CASE(8)
    ALL_STREAMS(PRODUCTS)
    ALL_OF_PIXELS(PRODUCTS_OF_PIXELS)

    typedef struct { int streams, results, pixels; SumProducts of[MOST_READS]; } ProductKind;
    #define BY_READS(NAME, S, R) {NAME##_##S##_##R##_1, NAME##_##S##_##R##_2, NAME##_##S##_##R##_3, \\
        NAME##_##S##_##R##_4, NAME##_##S##_##R##_5, NAME##_##S##_##R##_6}
    #define KIND_OF_PRODUCTS(NAME, S, R, PIXELS) {S, R, PIXELS, BY_READS(NAME, S, R)},
    static const SumProducts products_of_bands[][MOST_READS] = {
        BY_READS(products_of_2, 1, 1), BY_READS(products_of_3, 1, 1), BY_READS(products_of_4, 1, 1)};
    #define PRODUCT_KIND(S, R) KIND_OF_PRODUCTS(products, S, R, 0)
    #define PIXEL_KIND(R) KIND_OF_PRODUCTS(products_of_pixels, 1, R, 1)
    static const ProductKind product_kinds[] = {ALL_STREAMS(PRODUCT_KIND) ALL_OF_PIXELS(PIXEL_KIND)};
    #define PRODUCT_KINDS ((int) (sizeof(product_kinds) / sizeof(ProductKind)))
    """
    enum:
        MOST_SUMS
        MOST_READS
        MOST_POSITIONS
        MOST_TAPS
    ctypedef struct Section:
        Py_ssize_t step, steps
        const Mask* masks
    ctypedef struct Meeting:
        const real** x
        const real** y[MOST_TAPS]
        Py_ssize_t count, x_ahead, y_ahead
        const Py_ssize_t* reads
        Py_ssize_t reads_count, next
        const Pixels* pixels
    ctypedef struct Positions:
        Py_ssize_t count
        Py_ssize_t** e
        const real** x
        const real** y
        bint* row_exists
        bint* left[MOST_TAPS]
    Py_ssize_t some_of(Py_ssize_t left, Py_ssize_t most) noexcept nogil
    Py_ssize_t next_reads(Py_ssize_t sums, Py_ssize_t left) noexcept nogil
    ctypedef void (*SumProducts)(
        const Meeting* meeting, const Section* section, Py_ssize_t read, vec* sums,
    ) noexcept nogil
    ctypedef struct ProductKind:
        int streams, results, pixels
        const SumProducts* of
    const ProductKind* product_kinds
    const SumProducts** products_of_bands
    const int PRODUCT_KINDS


cdef inline void sum_products "sum_products" (
    int S, int R, int B, int N, bint PIXELS, bint PART, const Meeting* meeting, const Section* section, Py_ssize_t read,
    vec* sums,
) noexcept nogil:
    """Add to `sums` the products of N reads from `read` on, a vector of positions at a time, for each of B taps.

    Steps in PART have masks, of the vectors of each read and of y.
    """
    cdef vec acc[MOST_SUMS]
    cdef vec samples[MOST_SUMS]
    cdef vec row[8]
    cdef const real* x[MOST_READS]
    cdef const real* y[MOST_TAPS]
    cdef const Mask* mask
    cdef Py_ssize_t k, m, total = meeting.reads_count, x_ahead = meeting.x_ahead, y_ahead = meeting.y_ahead
    cdef Py_ssize_t width = meeting.pixels.source_step if PIXELS else LANES  # from one vector to the next
    cdef Py_ssize_t y_width = meeting.pixels.result_step if PIXELS else LANES
    cdef int i, n
    for _ in range(1):  # within a loop, as in `tile`
        for i in range(B * N * S * R):
            acc[i] = sums[i // (N * S * R) * meeting.next + i % (N * S * R)]
        for m in range(meeting.count):
            mask = section.masks
            for i in range(B):
                y[i] = meeting.y[i][m] + section.step * y_width * R
            for i in range(N):
                x[i] = meeting.x[m] + section.step * width * S + meeting.reads[read + i]
            for k in range(section.steps):
                if y_ahead:
                    for i in range(R):
                        FETCH_FAR(y[0] + y_ahead + i * y_width)
                if x_ahead:
                    for i in range(S):
                        FETCH_FAR(x[0] + x_ahead + (k * S + i) * width)
                for i in range(B * R):
                    row[i] = (
                        load_part(y[i // R] + i % R * y_width, mask[total * S + i % R])
                        if PART
                        else (<const vec*> (y[i // R] + i % R * y_width))[0]
                    )
                if not PIXELS:
                    deal(R, row)
                elif R > 1 and meeting.pixels.small:
                    deal_pixels(R, meeting.pixels, row)
                for i in range(N * S):
                    samples[i] = (
                        load_part(x[i // S] + (k * S + i % S) * width, mask[read * S + i])
                        if PART
                        else (<const vec*> (x[i // S] + (k * S + i % S) * width))[0]
                    )
                for n in range(N):
                    deal(S, samples + n * S)
                for i in range(N * S):
                    IN_REGISTER(samples[i])
                if R == 1:  # else GCC loads it again for each product; of several it does not
                    for i in range(B):
                        IN_REGISTER(row[i])
                for i in range(B * N * S * R):
                    acc[i] = acc[i] + samples[i // R % (N * S)] * row[i // (N * S * R) * R + i % R]
                for i in range(B):
                    y[i] += R * y_width
                if PART:
                    mask += total * S + R
        for i in range(B * N * S * R):
            sums[i // (N * S * R) * meeting.next + i % (N * S * R)] = acc[i]


most_positions, most_reads, most_sums, most_taps = MOST_POSITIONS, MOST_READS, MOST_SUMS, MOST_TAPS
pixel_products = {
    (product_kinds[i].streams, product_kinds[i].results) for i in range(PRODUCT_KINDS) if product_kinds[i].pixels
}


@final
cdef class WeightLines(LineTables):
    """The tables of `cytconv._weight_lines.weight_lines`."""

    cdef const SumProducts* sum_products
    cdef Py_ssize_t most_taps  # of a band; 1 if there is none
    cdef Py_ssize_t row_ahead  # how far away what comes next in a row begins
    cdef Py_ssize_t groups, parts, inputs, outputs, taps, products
    cdef Py_ssize_t sums  # for each product: one for all lanes, or for each number of a pixel
    cdef readonly Py_ssize_t shares, share_size, scratch_size
    cdef const Py_ssize_t[::1] places
    cdef const Py_ssize_t[:, ::1] lane_sums  # of each column, which sum each lane is added to; or -1

    def __init__(
        self, band, row_ahead, places, lane_sums, sums, groups, shares, parts, inputs, outputs, taps, **tables,
    ):
        LineTables.__init__(self, **tables)
        for i in range(PRODUCT_KINDS):
            if (product_kinds[i].streams, product_kinds[i].results) == (self.streams, self.result_streams):
                if product_kinds[i].pixels == self.of_pixels:
                    self.sum_products = product_kinds[i].of
        if self.sum_products == NULL:
            raise ValueError("there are no such lines")
        if band != 1 and (not 1 <= band <= MOST_TAPS or self.streams * self.result_streams > 1 or self.of_pixels):
            raise ValueError("there are no such bands")
        self.most_taps = band
        self.row_ahead = row_ahead
        self.places = places  # in the weights of a group, for each line, read and pair of streams; or -1
        self.groups, self.shares = groups, min(shares, self.group_tasks)  # of the tasks of each
        self.inputs, self.outputs, self.taps = inputs, outputs, taps  # channels of x and y, and taps, of a group
        self.parts = parts  # 2 if neighbouring channels are the parts of complex numbers
        self.products, self.lane_sums, self.sums = places.shape[0], lane_sums, sums
        self.share_size = cache_lines(self.products * self.sums)
        # Scratch of each worker: a vector for each product, of a task and, for each column, of its share; then the
        # weights of a group.
        self.scratch_size = max(
            (1 + self.columns.shape[0]) * cache_lines(self.products) * LANES, inputs * outputs * taps,
        )

    def run(self, x, y, w, Py_ssize_t tasks, int workers):
        """Fill the contiguous ``w[group, channel of x, channel of y, tap]``; returns whether all of it is finite."""
        cdef Place from_x = Place(x), from_y = Place(y), to = Place(w, True)
        cdef Py_ssize_t t, infinite = 0
        cdef Memory scratch = Memory(workers * self.scratch_size)
        cdef Memory shares = Memory(self.groups * self.shares * self.share_size)
        cdef real* memory = scratch.first
        with nogil:
            if workers == 1:
                for t in range(tasks):
                    self.share(t, from_x.first, from_y.first, shares.first, memory)
                for t in range(self.groups):
                    infinite += not self.finish(t, shares.first, to.first, memory)
            else:
                for t in prange(tasks, schedule="dynamic", num_threads=workers):
                    self.share(
                        t, from_x.first, from_y.first, shares.first, memory + thread_number() * self.scratch_size,
                    )
                for t in prange(self.groups, schedule="static", num_threads=workers):
                    infinite += not self.finish(
                        t, shares.first, to.first, memory + thread_number() * self.scratch_size,
                    )
        return infinite == 0

    cdef void share(self, Py_ssize_t t, const real* x, const real* y, real* shares, real* scratch) noexcept nogil:
        """The sums over one share of the positions."""
        cdef Py_ssize_t group = t // self.shares, share = t % self.shares, i, c
        cdef Py_ssize_t task = share * self.group_tasks // self.shares
        cdef Py_ssize_t size = cache_lines(self.products), columns = self.columns.shape[0]
        cdef vec* sums = <vec*> scratch
        cdef vec* total = sums + size
        x += group * self.source_group
        y += group * self.result_group
        memset(total, 0, columns * size * sizeof(vec))
        for task in range(task, (share + 1) * self.group_tasks // self.shares):
            for c in range(columns):
                memset(sums, 0, size * sizeof(vec))
                self.task(task, x + self.columns[c], y + self.columns[c], sums)
                for i in range(size):
                    total[c * size + i] = total[c * size + i] + sums[i]
        shares += t * self.share_size
        if not self.of_pixels:
            for i in range(size // LANES):
                add_lanes(LANES, total + i * LANES, shares + i * LANES)
        else:
            memset(shares, 0, self.share_size * sizeof(real))
            for c in range(columns):
                for i in range(self.products):
                    self.add_up(<const real*> (total + c * size + i), &self.lane_sums[c, 0], shares + i * self.sums)

    cdef void add_up(self, const real* numbers, const Py_ssize_t* to, real* sums) noexcept nogil:
        cdef Py_ssize_t lane
        for lane in range(LANES):
            if to[lane] >= 0:
                sums[to[lane]] += numbers[lane]

    cdef void task(self, Py_ssize_t t, const real* x, const real* y, vec* sums) noexcept nogil:
        """Some steps of all rows, at some positions of the outer axes; `t` counts the tasks of a group."""
        cdef Meeting meeting
        cdef Positions at
        cdef Section sections[3]
        cdef Py_ssize_t row, line, taps, b, p, count = self.divide(t % self.stretches * self.steps_each, sections)
        cdef bint fetched
        at.count = self.begin(t, at.e[0])
        for p in range(at.count):
            at.x[p] = x + self.offset(&self.source_step[0], at.e[p])
            if p + 1 < at.count:
                memcpy(at.e[p + 1], at.e[p], self.dims * sizeof(Py_ssize_t))
                advance(self.dims, &self.extent[0] if self.dims else NULL, at.e[p + 1])
        meeting.reads, meeting.reads_count, meeting.pixels = &self.reads[0], self.reads.shape[0], self.pixels
        meeting.next = self.line_weights
        for row in range(self.rows):
            for p in range(at.count):
                at.y[p] = y + self.offset(&self.result_step[0], at.e[p]) + self.row_place[row]
                at.row_exists[p] = self.exists(&self.row_range[0] + 2 * row * self.dims, at.e[p])
            meeting.y_ahead = self.row_ahead
            line = self.row_line[row]
            while line < self.row_line[row + 1]:
                taps, fetched = self.band(line, self.row_line[row + 1]), False
                for b in range(taps):
                    for p in range(at.count):
                        at.left[b][p] = (
                            at.row_exists[p]
                            and self.exists(&self.line_range[0] + 2 * (line + b) * self.dims, at.e[p])
                        )
                if taps > 1:
                    self.take_band(line, taps, &at, &meeting)
                    fetched = meeting.count > 0
                    self.meet(products_of_bands[taps - 2], taps, &meeting, sections, count, sums + line * meeting.next)
                for b in range(taps):
                    self.take_tap(line + b, b, fetched, &at, &meeting)
                    self.meet(self.sum_products, 1, &meeting, sections, count, sums + (line + b) * meeting.next)
                line += taps

    cdef void take_band(self, Py_ssize_t line, Py_ssize_t taps, Positions* at, Meeting* meeting) noexcept nogil:
        """Have lines of x meet a row of y for each tap, where all of these are in the task."""
        cdef Py_ssize_t last = self.dims - 1, b, p, end
        # Line i of x at position p is line i + b at p - by*b, if that is not behind the end of the last of the axes.
        cdef Py_ssize_t by = (self.line_place[line + 1] - self.line_place[line]) // self.source_step[last]
        cdef bint whole
        meeting.count = meeting.x_ahead = 0
        for b in range(taps):
            meeting.x_ahead = meeting.x_ahead or self.line_ahead[line + b]
        for p in range(at.count):
            end = p - by * (taps - 1)
            whole = 0 <= end < at.count and at.e[p][last] - at.e[end][last] == p - end
            for b in range(taps):
                whole = whole and at.left[b][p - by * b]
            if whole:
                meeting.x[meeting.count] = at.x[p] + self.line_place[line]
                for b in range(taps):
                    meeting.y[b][meeting.count] = at.y[p - by * b]
                    at.left[b][p - by * b] = False
                meeting.count += 1

    cdef void take_tap(
        self, Py_ssize_t line, Py_ssize_t tap, bint fetched, const Positions* at, Meeting* meeting,
    ) noexcept nogil:
        """Have lines of x meet the rows of y that one tap of a band has left."""
        cdef Py_ssize_t p
        meeting.count, meeting.x_ahead = 0, 0 if fetched else self.line_ahead[line]
        for p in range(at.count):
            if at.left[tap][p]:
                meeting.x[meeting.count] = at.x[p] + self.line_place[line]
                meeting.y[0][meeting.count] = at.y[p]
                meeting.count += 1

    cdef Py_ssize_t band(self, Py_ssize_t line, Py_ssize_t end) noexcept nogil:
        """How many taps from this line on are neighbours, so that what one of them meets the others meet elsewhere."""
        cdef Py_ssize_t step = self.source_step[self.dims - 1] if self.dims else 0, each, count = 1
        if self.most_taps == 1 or line + 1 == end or step == 0:
            return 1
        each = self.line_place[line + 1] - self.line_place[line]
        if each % step != 0:
            return 1
        while line + count < end and self.line_place[line + count] - self.line_place[line] == count * each:
            count += 1
        return some_of(count, self.most_taps)

    cdef void meet(
        self, const SumProducts* products, Py_ssize_t taps, Meeting* meeting, const Section* sections, Py_ssize_t count,
        vec* sums,
    ) noexcept nogil:
        """Sum all reads, some at a time, over each of the sections."""
        cdef Py_ssize_t read = 0, pairs = self.streams * self.result_streams, number, s
        if meeting.count == 0:
            return
        while read < meeting.reads_count:
            number = next_reads(pairs * taps, meeting.reads_count - read)
            for s in range(count):
                products[number - 1](meeting, &sections[s], read, sums)
            meeting.x_ahead = meeting.y_ahead = 0
            read += number
            sums += number * pairs

    cdef Py_ssize_t divide(self, Py_ssize_t step, Section* sections) noexcept nogil:
        """The steps of a task from this one on: before, within and behind the whole vectors; returns their number."""
        cdef Py_ssize_t next, count = 0, end = min(step + self.steps_each, self.steps)
        while step < end:
            next = self.alike(step, end)
            sections[count] = Section(step, next - step, self.masks_of(step))
            count += 1
            step = next
        return count

    cdef bint finish(self, Py_ssize_t group, real* shares, real* w, real* scratch) noexcept nogil:
        """The weights of a group of channels from its shares; tells whether they are finite."""
        cdef Py_ssize_t size = self.inputs * self.outputs * self.taps, stretch = self.parts * self.outputs * self.taps
        cdef Py_ssize_t all = size * self.sums, i, share, number
        cdef real* total = shares + group * self.shares * self.share_size
        cdef real* sums = scratch if self.parts == 2 else w + group * all
        for share in range(1, self.shares):
            for i in range(self.products * self.sums):
                total[i] += total[share * self.share_size + i]
        memset(sums, 0, all * sizeof(real))
        for i in range(self.products):
            if self.places[i] >= 0:
                for number in range(self.sums):
                    sums[number * size + self.places[i]] += total[i * self.sums + number]
        w += group * all // self.parts
        if self.parts == 2:
            for i in range(self.inputs // 2):
                join_parts(
                    sums + i * stretch, self.outputs, self.taps, self.taps, 1, self.outputs * self.taps,
                    w + i * stretch // 2,
                )
        return all_finite(w, all // self.parts)

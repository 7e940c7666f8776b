# Forward and adjoint of few channels: lines of the source are read where they lie, and what becomes of them stays in
# registers until it is stored.
#
#     source   line 0   A a B b C c D d ...   sums   P p Q q R r S s   deal   P Q R S   add   T U V W   zip
#              line 1   .                     --->                     --->   p q r s   -->             ---> result
#              ...      S streams, a read              acc[r] += (w[r,0] w[r,1] w[r,0] ...) * line      R streams
#                       at each offset of a tap        over lines and reads
#
# Where a vector holds no whole number of S samples, the streams are taken apart before they are multiplied.

cdef extern from *:
    """
    typedef double unaligned_double __attribute__((aligned(4), may_alias));
    #define MOST_LINES 128  /* of the source that a row has to do with */

    typedef struct {
        const real *lines[MOST_LINES];  /* of the source, */
        const real *weights[MOST_LINES];  /* one for each read and pair of streams, */
        Py_ssize_t ahead[MOST_LINES];  /* how far away what comes next begins, 0 if it was there before, */
        Py_ssize_t count;  /* and how many these are */
    } Lines;

    /* Whether streams are multiplied as they come, by weights that alternate like them: so only sums need be dealt. */
    #define ABREAST(S) (VECTORS && (S) > 1 && (int) LANES % (S) == 0)

    /* The numbers w[0], ..., w[S - 1] again and again. */
    static inline vec repeated(int S, const real *w) {
    #if defined(__AVX512F__) && VECTORS
        switch (S * sizeof(real)) {
        case 8: return (vec) _mm512_set1_pd(*(const unaligned_double *) w);
        case 16: return (vec) _mm512_broadcast_f32x4(_mm_loadu_ps((const float *) w));
        case 32: return (vec) _mm512_broadcast_f64x4(_mm256_loadu_pd((const double *) w));
        }
    #elif defined(__AVX2__) && VECTORS
        switch (S * sizeof(real)) {
        case 8: return (vec) _mm256_set1_pd(*(const unaligned_double *) w);
        case 16: return (vec) _mm256_broadcast_ps((const __m128 *) w);
        }
    #endif
        vec v;
        for (int j = 0; j < (int) LANES; j++) ((real *) &v)[j] = w[j % S];
        return v;
    }

    LITERALS sum_lines(
        int, int, int, int, Py_ssize_t, Py_ssize_t, const Mask *, const Lines *, const Py_ssize_t *, Py_ssize_t,
        const real *, vec *, real *);

    /* `sum_lines` with these numbers as literals. */
    static void sum_steps(
        int streams, int results, Py_ssize_t steps, Py_ssize_t step, const Mask *masks, const Lines *lines,
        const Py_ssize_t *reads, Py_ssize_t reads_count, const real *bias, vec *found, real *y) {
    #define STEPS(S, R, NV) case PAIR(S, R): \\
        if (masks) sum_lines(S, R, NV, 1, steps, step, masks, lines, reads, reads_count, bias, found, y); \\
        else sum_lines(S, R, NV, 0, steps, step, masks, lines, reads, reads_count, bias, found, y); \\
        return;
        switch (PAIR(streams, results)) { ALL_STREAMS(STEPS) }
    }
    """
    enum:
        MOST_LINES
    bint ABREAST(int streams) noexcept nogil
    vec repeated(int streams, const real* w) noexcept nogil
    ctypedef struct Lines:
        const real** lines
        const real** weights
        Py_ssize_t* ahead
        Py_ssize_t count
    void sum_steps(
        int streams, int results, Py_ssize_t steps, Py_ssize_t step, const Mask* masks, const Lines* lines,
        const Py_ssize_t* reads, Py_ssize_t reads_count, const real* bias, vec* found, real* y,
    ) noexcept nogil


cdef inline void sum_lines "sum_lines" (
    int S, int R, int NV, bint PART, Py_ssize_t steps, Py_ssize_t step, const Mask* masks, const Lines* lines,
    const Py_ssize_t* reads, Py_ssize_t reads_count, const real* bias, vec* found, real* y,
) noexcept nogil:
    """So many steps, of NV vectors of positions each; those in PART have `masks`, of the vectors of each
    read and of the result.  What is `found`, unless NULL, will be NaN if some result is not finite."""
    cdef vec acc[8]
    cdef vec samples[8]
    cdef vec factors[8]
    cdef vec sums[8]
    cdef vec row[8]
    cdef vec checks[4]
    cdef const real* w
    cdef const real* line
    cdef Py_ssize_t e, t, at, first = step * NV * LANES * S, to = step * NV * LANES * R
    cdef int i, v, K = S if ABREAST(S) else 1  # vectors of sums for each of results
    for i in range(4):
        checks[i] = ZEROS
    for _ in range(steps):
        for i in range(R * NV * K):
            acc[i] = ZEROS
        for e in range(lines.count):
            w = lines.weights[e]
            if lines.ahead[e]:
                for i in range(S * NV):
                    FETCH_FAR(lines.lines[e] + lines.ahead[e] + first + i * LANES)
            for t in range(reads_count):
                line = lines.lines[e] + first + reads[t]
                for i in range(S * NV):
                    samples[i] = load_part(line + i * LANES, masks[t * S * NV + i]) if PART else (<const vec*> line)[i]
                if ABREAST(S):
                    for i in range(R):
                        factors[i] = repeated(S, w + i * S)
                    for i in range(R * NV * K):
                        acc[i] = acc[i] + factors[i // (NV * K)] * samples[i % (NV * K)]
                else:
                    for v in range(NV):
                        deal(S, samples + v * S)
                    for i in range(S * R * NV):
                        acc[i % (R * NV)] = acc[i % (R * NV)] + (
                            w[i // NV % R * S + i // (R * NV)] * samples[i % NV * S + i // (R * NV)]
                        )
                w += S * R
        for i in range(R * NV):
            deal(K, acc + i * K)
        for i in range(R * NV):
            sums[i] = acc[i * K] + bias[i // NV]
        for i in range(R * NV * K):
            if i % K:
                sums[i // K] = sums[i // K] + acc[i]
        if found != NULL:
            for i in range(R * NV):
                checks[i % 4] = checks[i % 4] + sums[i] * ZEROS
        for v in range(NV):
            for i in range(R):
                row[i] = sums[i * NV + v]
            zip(R, row)
            for i in range(R):
                at = to + (v * R + i) * LANES
                if PART:
                    store_part(y + at, masks[reads_count * S * NV + v * R + i], row[i])
                else:
                    (<vec*> (y + at))[0] = row[i]
        first += NV * S * LANES
        to += NV * R * LANES
        if PART:
            masks += (reads_count * S + R) * NV
    if found != NULL:
        for i in range(4):
            found[0] = found[0] + checks[i]


most_lines = MOST_LINES


@final
cdef class Gather:
    """Weights in the order of a table that says where each of them lies, and -1 where there is to be a zero."""

    cdef Py_ssize_t groups, step  # of channels; from the weights of one to those of the next
    cdef readonly Py_ssize_t size  # when packed
    cdef const Py_ssize_t[::1] places

    def __init__(self, Py_ssize_t groups, Py_ssize_t step, const Py_ssize_t[::1] places):
        self.groups, self.step, self.places = groups, step, places
        self.size = groups * places.shape[0]

    def packed(self, array, packed, int workers):
        """Fill the array `packed`; tells whether all weights are finite."""
        cdef Place w = Place(array), to = Place(packed, True)
        return self.pack(w.first, to.first)

    cdef bint pack(self, const real* w, real* packed) noexcept nogil:
        cdef Py_ssize_t g, j, n = self.places.shape[0]
        for g in range(self.groups):
            for j in range(n):
                packed[g * n + j] = w[g * self.step + self.places[j]] if self.places[j] >= 0 else 0
        return all_finite(packed, self.size)


@final
cdef class Stencil(LineTables):
    """The tables of `cytconv._stencil.stencil`."""

    cdef Py_ssize_t results, piece  # channels; steps that are written at once
    cdef bint check
    cdef const Py_ssize_t[::1] row_channel
    cdef Py_ssize_t bias_size, scratch_size

    def __init__(self, results, piece, check, row_channel, **tables):
        LineTables.__init__(self, **tables)
        self.results, self.piece, self.check, self.row_channel = results, piece, check, row_channel
        # Scratch of each worker: what is found in checks, the bias of each row, a piece of a line on its way past the
        # caches.
        self.bias_size = cache_lines(self.rows * self.result_streams)
        self.scratch_size = PER_LINE + self.bias_size + piece * self.step_size * self.result_streams

    def run(self, source, weights, bias, result, Py_ssize_t tasks, int workers):
        """Compute the whole result; the same as `Correlation.run`."""
        cdef Place from_ = Place(source), to = Place(result, True), b = Place(bias), w
        cdef Gather packing = None
        cdef Memory packed = None, memory = Memory(workers * self.scratch_size)
        cdef Py_ssize_t next = 0, infinite = 0
        cdef int worker
        cdef const real* gathered
        if type(weights) is tuple:
            packing, array = weights
            w = Place(array)
            packed = Memory(packing.size)
            gathered = packed.first
            if not packing.pack(w.first, packed.first):
                return False
        else:
            w = Place(weights)
            gathered = w.first
        with nogil:
            if workers == 1:
                infinite = self.work(tasks, &next, from_.first, gathered, b.first, to.first, memory.first)
            else:
                for worker in prange(workers, schedule="static", chunksize=1, num_threads=workers):
                    infinite += self.work(
                        tasks, &next, from_.first, gathered, b.first, to.first,
                        memory.first + worker * self.scratch_size,
                    )
        return infinite == 0

    cdef Py_ssize_t work(
        self, Py_ssize_t tasks, Py_ssize_t* next, const real* source, const real* weights, const real* bias,
        real* result, real* scratch,
    ) noexcept nogil:
        """What one worker does; tells whether some result is not finite."""
        cdef Py_ssize_t group_weights = self.row_line[self.rows] * self.line_weights
        cdef Py_ssize_t i, group = -1, t = claim(next, 1)
        memset(scratch, 0, PER_LINE * sizeof(real))
        while t < tasks:
            if group != t // self.group_tasks:
                group = t // self.group_tasks
                for i in range(self.rows * self.result_streams):
                    scratch[PER_LINE + i] = bias[group * self.results + self.row_channel[i]] if bias != NULL else 0
            self.task(
                t % self.group_tasks, source + group * self.source_group, weights + group * group_weights,
                result + group * self.result_group, scratch,
            )
            t = claim(next, 1)
        if self.piece:
            stream_fence()
        return not all_finite(scratch, PER_LINE)

    cdef void task(
        self, Py_ssize_t t, const real* source, const real* weights, real* result, real* scratch,
    ) noexcept nogil:
        """Some steps of all rows, at some positions of the outer axes; `t` counts the tasks of a group."""
        cdef Lines lines
        cdef Py_ssize_t e[MAX_DIMS]
        cdef Py_ssize_t i, row, step = t % self.stretches * self.steps_each
        cdef Py_ssize_t end = min(step + self.steps_each, self.steps)
        cdef const real* x
        cdef real* y
        for _ in range(self.begin(t, e)):
            x = source + self.offset(&self.source_step[0], e)
            y = result + self.offset(&self.result_step[0], e)
            for row in range(self.rows):
                if not self.exists(&self.row_range[0] + 2 * row * self.dims, e):
                    continue
                lines.count = 0
                for i in range(self.row_line[row], self.row_line[row + 1]):
                    if self.exists(&self.line_range[0] + 2 * i * self.dims, e):
                        lines.lines[lines.count] = x + self.line_place[i]
                        lines.weights[lines.count] = weights + i * self.line_weights
                        lines.ahead[lines.count] = self.line_ahead[i]
                        lines.count += 1
                self.row(row, step, end, &lines, y + self.row_place[row], scratch)
            advance(self.dims, &self.extent[0] if self.dims else NULL, e)

    cdef void row(
        self, Py_ssize_t row, Py_ssize_t step, Py_ssize_t end, const Lines* lines, real* y, real* scratch,
    ) noexcept nogil:
        """Some steps of a line of the result, a piece at a time if it goes past the caches."""
        cdef Py_ssize_t next, first, begin, last
        cdef const real* bias = scratch + PER_LINE + row * self.result_streams
        cdef vec* found = <vec*> scratch if self.check else NULL
        cdef real* line = scratch + PER_LINE + self.bias_size
        if self.piece == 0:
            self.some(step, end, lines, bias, found, y)
            return
        while step < end:
            next = min(step + self.piece, end)
            first = step * self.step_size * self.result_streams
            last = min(next * self.step_size * self.result_streams, self.result_end)
            self.some(step, next, lines, bias, found, line - first)
            begin = max(self.result_begin - first, 0)
            stream(line + begin, max(last - first - begin, 0), 0, y + first + begin)
            step = next

    cdef void some(
        self, Py_ssize_t step, Py_ssize_t end, const Lines* lines, const real* bias, vec* found, real* y,
    ) noexcept nogil:
        cdef Py_ssize_t next
        while step < end:
            next = self.alike(step, end)
            sum_steps(
                self.streams, self.result_streams, next - step, step, self.masks_of(step), lines, &self.reads[0],
                self.reads.shape[0], bias, found, y,
            )
            step = next

# Forward and adjoint of few channels: lines of the source are read where they lie, and what becomes of them stays in
# registers until it is stored.
#
#     source   line 0   A a B b C c D d ...   sums   P p Q q R r S s   deal   P Q R S   add   T U V W   zip
#              line 1   .                     --->                     --->   p q r s   -->             ---> result
#              ...      S streams, a read              acc[r] += (w[r,0] w[r,1] w[r,0] ...) * line      R streams
#                       at each offset of a tap        over lines and reads
#
# Where a vector holds no whole number of S samples, the streams are taken apart before they are multiplied.
#
# Rows that have lines in common are a *band*: what is loaded serves all of them.  A row has no part in some lines of
# its band, and a stream of the result none in some reads; these meet nothing.
#
# Lines that are one step long are done several at once, across the last of the outer axes: what all of them have to do
# with lies further on by the same distance from one to the next.
#
# Along a line of pixels (pixels.pxi) the weights are vectors, too: the numbers of a pixel may have taps of their own.

cdef extern from *:
    """
    #ifdef __GNUC__
      typedef double unaligned_double __attribute__((aligned(4), may_alias));
    #endif
    #define MOST_LINES 256  /* of the source that a band has to do with */
    #define BAND_ROWS 4  /* of a band */

    typedef struct {  /* of the source */
        Py_ssize_t place, weights;  /* where it lies, and its weights, by reads, rows of the band, streams */
        Py_ssize_t meets;  /* which sums it has a part in: bit row * R + stream of the result, as for each read */
        Py_ssize_t ahead;  /* how far away what comes next begins, 0 if it was there before */
    } BandLine;

    typedef struct {
        const real *source, *weights;  /* what places count from */
        const BandLine *lines;
        Py_ssize_t count;
        real *rows[BAND_ROWS];  /* of the result; NULL if there is none here */
        Py_ssize_t part_source, part_result;  /* from one step in part to the next */
        Py_ssize_t lines_at_once;  /* 1, or more if they are one step long */
        const Pixels *pixels;  /* along the lines */
    } Band;

    /* What is done in one step, by the streams of the source and the result: so many rows of a band, and vectors of
       positions of each sum; as many as lets the registers hold sums and samples.  Pixels come with one stream on one
       side at least. */
    #define ROWS_ONE_STREAM(CASE) \\
        CASE(1, 1, 1, 4) CASE(1, 1, 2, 4) CASE(1, 2, 1, 4) CASE(1, 2, 2, 2) CASE(2, 1, 1, 4) CASE(2, 1, 2, 2) \\
        CASE(1, 3, 1, 2) CASE(3, 1, 1, 2) CASE(3, 1, 2, 2) CASE(1, 4, 1, 2) CASE(4, 1, 1, 2) CASE(4, 1, 2, 1) \\
        CASE(1, 8, 1, 1) CASE(8, 1, 1, 1)
    #define ROWS_BOTH(CASE) CASE(2, 2, 1, 2) CASE(2, 4, 1, 1) CASE(4, 2, 1, 1)
    #if REGISTERS == 32
      #define ONE_STREAM(CASE) ROWS_ONE_STREAM(CASE) \\
        CASE(1, 1, 4, 1) CASE(1, 1, 4, 2) CASE(1, 1, 4, 4) CASE(1, 2, 2, 1) CASE(1, 2, 2, 4) CASE(2, 1, 2, 1) \\
        CASE(2, 1, 2, 4) CASE(1, 3, 2, 1) CASE(1, 3, 2, 2) CASE(3, 1, 2, 1) CASE(1, 4, 2, 1) CASE(1, 4, 2, 2) \\
        CASE(4, 1, 2, 2) CASE(1, 8, 2, 1) CASE(8, 1, 2, 1)
      #define BOTH_STREAMS(CASE) ROWS_BOTH(CASE) \\
        CASE(2, 2, 2, 1) CASE(2, 2, 2, 2) CASE(2, 4, 2, 1) CASE(4, 2, 2, 1)
    #else
      #define ONE_STREAM(CASE) ROWS_ONE_STREAM(CASE)
      #define BOTH_STREAMS(CASE) ROWS_BOTH(CASE)
    #endif

    /* Whether sums that have no part in a read are skipped, or meet zeros: a product of `each` vectors, for one row and
       stream of the result, takes less time than to ask if there is but one vector and two are multiplied at once. */
    #define SKIPS(each) (REGISTERS == 32 || (each) >= 2)

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

    /* Add to each of n sums a product, if the bit of its factor says so. */
    LITERALS meet_samples(int n, int each, Py_ssize_t meet, const vec *factors, const vec *samples, vec *acc) {
        UNROLLED
        for (int i = 0; i < n; i++)
            if (n == each || !SKIPS(each) || meet >> i / each & 1)
                acc[i] = acc[i] + factors[i / each] * samples[i % each];
    }

    LITERALS sum_lines(
        int, int, int, int, int, int, Py_ssize_t, Py_ssize_t, const Mask *, const Band *, const Py_ssize_t *,
        const Py_ssize_t *, Py_ssize_t, const real *, vec *);

    /* `sum_lines` with these numbers as literals. */
    typedef void (*SumLines)(
        Py_ssize_t, Py_ssize_t, const Mask *, const Band *, const Py_ssize_t *, const Py_ssize_t *, Py_ssize_t,
        const real *, vec *);
    #define SUM_LINES(NAME, S, R, B, NV, PIXELS) \\
        APART NAME##_##S##_##R##_##B##_##NV( \\
            Py_ssize_t steps, Py_ssize_t step, const Mask *masks, const Band *band, const Py_ssize_t *reads, \\
            const Py_ssize_t *meets, Py_ssize_t count, const real *bias, vec *found) { \\
            if (masks) sum_lines(S, R, B, NV, PIXELS, 1, steps, step, masks, band, reads, meets, count, bias, found); \\
            else sum_lines(S, R, B, NV, PIXELS, 0, steps, step, masks, band, reads, meets, count, bias, found); \\
        }
    #define OF_NUMBERS(S, R, B, NV) SUM_LINES(sum_lines, S, R, B, NV, 0)
    #define OF_PIXELS(S, R, B, NV) SUM_LINES(sum_pixels, S, R, B, NV, 1)
    ONE_STREAM(OF_NUMBERS)
    BOTH_STREAMS(OF_NUMBERS)
    ONE_STREAM(OF_PIXELS)

    typedef struct { int streams, results, rows, vectors, pixels, skips; SumLines sum; } BandKind;
    #define KIND(S, R, B, NV) {S, R, B, NV, 0, SKIPS(NV * S), sum_lines_##S##_##R##_##B##_##NV},
    #define KIND_OF_PIXELS(S, R, B, NV) {S, R, B, NV, 1, 1, sum_pixels_##S##_##R##_##B##_##NV},
    static const BandKind band_kinds[] = {ONE_STREAM(KIND) BOTH_STREAMS(KIND) ONE_STREAM(KIND_OF_PIXELS)};
    #define BAND_KINDS ((int) (sizeof(band_kinds) / sizeof(BandKind)))
    """
    enum:
        MOST_LINES
        BAND_ROWS
    bint ABREAST(int streams) noexcept nogil
    bint SKIPS(int each) noexcept nogil
    vec repeated(int streams, const real* w) noexcept nogil
    void meet_samples(
        int n, int each, Py_ssize_t meet, const vec* factors, const vec* samples, vec* acc,
    ) noexcept nogil
    ctypedef void (*SumLines)(
        Py_ssize_t steps, Py_ssize_t step, const Mask* masks, const Band* band, const Py_ssize_t* reads,
        const Py_ssize_t* meets, Py_ssize_t count, const real* bias, vec* found,
    ) noexcept nogil
    ctypedef struct BandKind:
        int streams, results, rows, vectors, pixels, skips
        SumLines sum
    const BandKind* band_kinds
    const int BAND_KINDS
    ctypedef struct BandLine:
        Py_ssize_t place, weights, meets, ahead
    ctypedef struct Band:
        const real* source
        const real* weights
        const BandLine* lines
        Py_ssize_t count
        real** rows
        Py_ssize_t part_source, part_result, lines_at_once
        const Pixels* pixels


cdef enum:
    FOUND = 4  # vectors of what is found in checks, so that one addition need not wait for the other


cdef inline void sum_lines "sum_lines" (
    int S, int R, int B, int NV, bint PIXELS, bint PART, Py_ssize_t steps, Py_ssize_t step, const Mask* masks,
    const Band* band, const Py_ssize_t* reads, const Py_ssize_t* meets, Py_ssize_t count, const real* bias, vec* found,
) noexcept nogil:
    """So many steps, of NV vectors of positions each, along a line or, if lines are one step long, across them; those
    in PART have `masks`, of the vectors of each of `count` reads and of a row.  Some of what is `found`, unless NULL,
    will be NaN if some result is not finite."""
    cdef vec acc[16]
    cdef vec samples[8]
    cdef vec factors[8]
    cdef vec row[8]
    cdef vec dealt[16]
    cdef vec sums[16]
    cdef vec factor
    cdef const BandLine* from_
    cdef const real* w
    cdef const real* x
    cdef const real* line
    cdef real* y
    cdef Py_ssize_t e, t, k, meet, at
    cdef Py_ssize_t width = band.pixels.source_step if PIXELS else LANES  # from one vector to the next
    cdef Py_ssize_t result_width = band.pixels.result_step if PIXELS else LANES
    cdef Py_ssize_t first = step * NV * width * S, to = step * NV * result_width * R
    cdef int i, v, K = S if ABREAST(S) and not PIXELS else 1  # vectors of sums for each of results
    for k in range(steps):
        for i in range(B * R * NV * K):
            acc[i] = ZEROS
        for e in range(band.count):
            from_ = band.lines + e
            x, w = band.source + from_.place + first, band.weights + from_.weights
            if from_.ahead:
                for i in range(S * NV):
                    FETCH_FAR(x + from_.ahead + i * width)
            for t in range(count):
                line, meet = x + reads[t], from_.meets & meets[t]
                for i in range(S * NV):
                    samples[i] = (
                        load_part(line + i * width, masks[t * S * NV + i])
                        if PART
                        else (<const vec*> (line + i * width))[0]
                    )
                if PIXELS:
                    if S > 1 and band.pixels.small:
                        for v in range(NV):
                            deal_pixels(S, band.pixels, samples + v * S)
                    for i in range(B * R * S * NV):
                        if B * R == 1 or meet >> (i // (S * NV)) & 1:
                            if i % NV == 0:
                                factor = (<const vec*> w)[i // NV]
                                IN_REGISTER(factor)
                            at = i // (S * NV) * NV + i % NV
                            acc[at] = acc[at] + factor * samples[i % NV * S + i // NV % S]
                    w += S * B * R * LANES
                elif ABREAST(S):
                    for i in range(B * R):
                        factors[i] = repeated(S, w + i * S)
                    meet_samples(B * R * NV * K, NV * K, meet, factors, samples, acc)
                    w += S * B * R
                else:
                    for v in range(NV):
                        deal(S, samples + v * S)
                    for i in range(B * R * NV * S):
                        if B * R == 1 or not SKIPS(NV * S) or meet >> (i // (NV * S)) & 1:
                            acc[i // S] = acc[i // S] + w[i // (NV * S) * S + i % S] * samples[i % (NV * S)]
                    w += S * B * R
        # From rows, streams, positions to rows, positions, streams; `acc` itself would not stay in registers.
        for i in range(B * R * NV * K):
            dealt[i] = acc[(i // (R * NV * K) * R + i // K % R) * NV * K + i // (K * R) % NV * K + i % K]
        for i in range(B * R * NV):
            deal(K, dealt + i * K)
        for i in range(B * R * NV):
            at = i // (R * NV) * R + i % R
            sums[i] = dealt[i * K] + ((<const vec*> bias)[at] if PIXELS else ZEROS + bias[at])
        for i in range(B * R * NV * K):
            if i % K:
                sums[i // K] = sums[i // K] + dealt[i]
        if found != NULL:
            for i in range(B * R * NV):
                if band.rows[i // (R * NV)] != NULL:
                    found[i % FOUND] = found[i % FOUND] + sums[i] * ZEROS
        for v in range(B * NV):
            y = band.rows[v // NV]
            if y != NULL:
                for i in range(R):
                    row[i] = sums[v * R + i]
                if not PIXELS:
                    zip(R, row)
                elif R > 1 and band.pixels.small:
                    zip_pixels(R, band.pixels, row)
                for i in range(R):
                    at = v % NV * R + i
                    if PART:
                        store_part(y + to + at * result_width, masks[count * S * NV + at], row[i])
                    elif PIXELS and at == NV * R - 1 and k == steps - 1:
                        # Lanes behind the last pixel: elsewhere the vector that is stored next takes their place.
                        store_part(y + to + at * result_width, band.pixels.stored, row[i])
                    else:
                        (<vec*> (y + to + at * result_width))[0] = row[i]
        first += band.part_source if PART else NV * S * width
        to += band.part_result if PART else NV * R * result_width
        if PART:
            masks += (count * S + R) * NV


most_lines = MOST_LINES
bands = {}  # for the streams that can be done: by how many rows a band may have, how many vectors a step
pixel_bands = {}  # the same for lines of pixels
skipping = set()  # streams, rows and vectors of those that meet no zeros in place of taps


def note_bands():
    for i in range(BAND_KINDS):
        S, R, rows, vectors = band_kinds[i].streams, band_kinds[i].results, band_kinds[i].rows, band_kinds[i].vectors
        kinds = pixel_bands if band_kinds[i].pixels else bands
        kinds.setdefault((S, R), {}).setdefault(rows, []).append(vectors)
        if band_kinds[i].skips and not band_kinds[i].pixels:
            skipping.add((S, R, rows, vectors))


note_bands()


@final
cdef class Gather:
    """Weights in the order of a table that says where each of them lies, and -1 where there is to be a zero."""

    cdef Py_ssize_t step  # from the weights of one group of channels to those of the next
    cdef readonly Py_ssize_t size  # when packed
    cdef const Py_ssize_t[:, ::1] groups  # which one it is, for each of those that are packed and each lane; or -1
    cdef const Py_ssize_t[::1] places

    def __init__(self, const Py_ssize_t[:, ::1] groups, Py_ssize_t step, const Py_ssize_t[::1] places):
        self.groups, self.step, self.places = groups, step, places
        self.size = groups.shape[0] * groups.shape[1] * places.shape[0]

    def packed(self, array, packed, int workers):
        """Fill the array `packed`, by one thread, as there are few; tells whether all weights are finite."""
        cdef Place w = Place(array), to = Place(packed, True)
        return self.pack(w.first, to.first)

    cdef bint pack(self, const real* w, real* packed) noexcept nogil:
        cdef Py_ssize_t g, j, lane, group, n = self.places.shape[0], lanes = self.groups.shape[1]
        cdef const real* these
        for g in range(self.groups.shape[0]):
            for lane in range(lanes):
                group = self.groups[g, lane]
                these = w + max(group, 0) * self.step
                for j in range(n):
                    packed[(g * n + j) * lanes + lane] = these[self.places[j]] if self.places[j] >= 0 <= group else 0
        return all_finite(packed, self.size)


@final
cdef class Stencil(LineTables):
    """The tables of `cytconv._stencil.stencil`."""

    cdef int band  # rows of each
    cdef SumLines sum_lines
    cdef Py_ssize_t results, piece  # channels; steps of a row that go past the caches at once, 0 if none does
    cdef bint check
    cdef const Py_ssize_t[::1] row_channel, read_meets
    cdef Py_ssize_t bias_size, piece_size, scratch_size
    cdef const Py_ssize_t[:, ::1] lane_groups  # as for the weights, of each column of each group
    cdef Memory line_memory, range_memory
    cdef BandLine* lines
    cdef Py_ssize_t* band_range  # positions at which all rows and lines of a band exist, in the order of row_range;
    cdef Py_ssize_t* whole_range  # and those of all bands

    def __init__(self, band, results, piece, check, row_channel, line_meets, read_meets, lane_groups, **tables):
        LineTables.__init__(self, **tables)
        self.band, self.results, self.piece, self.check = band, results, piece, check
        self.row_channel, self.read_meets, self.lane_groups = row_channel, read_meets, lane_groups
        for i in range(BAND_KINDS):
            kind = (band_kinds[i].streams, band_kinds[i].results, band_kinds[i].rows, band_kinds[i].vectors)
            if kind == (self.streams, self.result_streams, band, self.vectors):
                if band_kinds[i].pixels == self.of_pixels:
                    self.sum_lines = band_kinds[i].sum
        if self.sum_lines == NULL:
            raise ValueError("there is no such band")
        # Scratch of each worker: what is found in checks, the bias of each row, a piece of each row of a band on its
        # way past the caches.
        self.bias_size = cache_lines(self.columns.shape[0] * self.rows * self.result_streams * lane_groups.shape[1])
        self.piece_size = cache_lines(piece * self.step_numbers)
        self.scratch_size = FOUND * LANES + self.bias_size + band * self.piece_size
        self.note_lines(line_meets)

    cdef void note_lines(self, const Py_ssize_t[::1] meets):
        cdef Py_ssize_t i, d, number, count = self.line_place.shape[0], bands = self.rows // self.band
        cdef Py_ssize_t* within
        self.line_memory = Memory(count * sizeof(BandLine) // sizeof(real))
        self.lines = <BandLine*> self.line_memory.first
        for i in range(count):
            number = i * self.line_weights * self.band * self.lane_groups.shape[1]
            self.lines[i] = BandLine(self.line_place[i], number, meets[i], self.line_ahead[i])
        self.range_memory = Memory(2 * (bands + 1) * self.dims * sizeof(Py_ssize_t) // sizeof(real))
        self.band_range = <Py_ssize_t*> self.range_memory.first
        self.whole_range = self.band_range + 2 * bands * self.dims
        for d in range(self.dims):
            self.whole_range[2 * d], self.whole_range[2 * d + 1] = 0, self.extent[d]
        for number in range(bands):
            for d in range(self.dims):
                within = self.band_range + 2 * (number * self.dims + d)
                within[0], within[1] = 0, self.extent[d]
                for i in range(number * self.band, (number + 1) * self.band):
                    common(&self.row_range[2 * (i * self.dims + d)], within)
                for i in range(self.row_line[number], self.row_line[number + 1]):
                    common(&self.line_range[2 * (i * self.dims + d)], within)
                common(within, self.whole_range + 2 * d)

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
        cdef Py_ssize_t columns = self.columns.shape[0], lanes = self.lane_groups.shape[1]
        cdef Py_ssize_t group_weights = columns * self.column_weights()
        cdef Py_ssize_t group = -1, c, t = claim(next, 1)
        memset(scratch, 0, FOUND * sizeof(vec))
        while t < tasks:
            if group != t // self.group_tasks:
                group = t // self.group_tasks
                for c in range(columns):
                    self.repeat_bias(
                        bias, &self.lane_groups[group * columns + c, 0],
                        scratch + FOUND * LANES + c * self.rows * self.result_streams * lanes,
                    )
            self.task(
                t % self.group_tasks, source + group * self.source_group, weights + group * group_weights,
                result + group * self.result_group, scratch,
            )
            t = claim(next, 1)
        if self.piece:
            stream_fence()
        return not all_finite(scratch, FOUND * LANES)

    cdef Py_ssize_t column_weights(self) noexcept nogil:
        return self.line_place.shape[0] * self.line_weights * self.band * self.lane_groups.shape[1]

    cdef void repeat_bias(self, const real* bias, const Py_ssize_t* groups, real* to) noexcept nogil:
        """The bias of each stream of each row, in all lanes that need not have the same."""
        cdef Py_ssize_t i, lane, lanes = self.lane_groups.shape[1]
        for lane in range(lanes):
            for i in range(self.rows * self.result_streams):
                to[i * lanes + lane] = (
                    bias[groups[lane] * self.results + self.row_channel[i]] if bias != NULL and groups[lane] >= 0 else 0
                )

    cdef void task(
        self, Py_ssize_t t, const real* source, const real* weights, real* result, real* scratch,
    ) noexcept nogil:
        """Some steps of all rows, at some positions of the outer axes; `t` counts the tasks of a group."""
        cdef Band band
        cdef BandLine some[MOST_LINES]
        cdef Py_ssize_t e[MAX_DIMS]
        cdef Py_ssize_t i, b, c, row, number, first, last, step = t % self.stretches * self.steps_each
        cdef Py_ssize_t end = min(step + self.steps_each, self.steps), further, columns = self.columns.shape[0]
        cdef Py_ssize_t column_weights = self.column_weights()
        cdef Py_ssize_t column_bias = self.rows * self.result_streams * self.lane_groups.shape[1]
        cdef Py_ssize_t left = self.begin(t, e)
        cdef const real* x
        cdef real* y
        cdef bint whole
        band.pixels = self.pixels
        band.part_source, band.part_result = self.vectors * self.streams * self.pixels.source_step, self.step_numbers
        band.lines_at_once = 1
        if self.lines_at_once > 1:
            band.part_source, band.part_result = self.source_step[self.dims - 1], self.result_step[self.dims - 1]
        while left > 0:
            if self.lines_at_once > 1:
                band.lines_at_once = min(self.across(e), left)
            x, y = source + self.offset(&self.source_step[0], e), result + self.offset(&self.result_step[0], e)
            for number in range(self.rows // self.band):
                band.source, band.weights = x, weights
                whole = self.exists(self.band_range + 2 * number * self.dims, e)
                for b in range(self.band):
                    row = number * self.band + b
                    band.rows[b] = y + self.row_place[row]
                    if not whole and not self.exists(&self.row_range[0] + 2 * row * self.dims, e):
                        band.rows[b] = NULL
                first, last = self.row_line[number], self.row_line[number + 1]
                band.lines, band.count = self.lines + first, last - first
                if not whole:
                    band.lines, band.count = some, 0
                    for i in range(first, last):
                        if self.exists(&self.line_range[0] + 2 * i * self.dims, e):
                            some[band.count] = self.lines[i]
                            band.count += 1
                self.sum(number, step, end, &band, scratch, 0)
                for c in range(1, columns):
                    further = self.columns[c] - self.columns[c - 1]
                    band.source, band.weights = band.source + further, band.weights + column_weights
                    for b in range(self.band):
                        if band.rows[b] != NULL:
                            band.rows[b] += further
                    self.sum(number, step, end, &band, scratch, c * column_bias)
            left -= band.lines_at_once
            if self.lines_at_once > 1:
                e[self.dims - 1] += band.lines_at_once - 1
            advance(self.dims, &self.extent[0] if self.dims else NULL, e)

    cdef Py_ssize_t across(self, const Py_ssize_t* e) noexcept nogil:
        """How many positions of the last outer axis, from this one on, have all rows and lines, and masks."""
        if not self.exists(self.whole_range, e):
            return 1
        return min(self.whole_range[2 * self.dims - 1] - e[self.dims - 1], self.lines_at_once)

    cdef void sum(
        self, Py_ssize_t number, Py_ssize_t step, Py_ssize_t end, Band* band, real* scratch, Py_ssize_t column_bias,
    ) noexcept nogil:
        """Some steps of a band, a piece of each row at a time if it goes past the caches."""
        cdef Py_ssize_t next, first, begin, size, b
        cdef Py_ssize_t place = column_bias + number * self.band * self.result_streams * self.lane_groups.shape[1]
        cdef const real* bias = scratch + FOUND * LANES + place
        cdef vec* found = <vec*> scratch if self.check else NULL
        cdef real* pieces = scratch + FOUND * LANES + self.bias_size
        cdef real* rows[BAND_ROWS]
        if self.piece == 0:
            self.some(step, end, band, bias, found)
            return
        for b in range(self.band):
            rows[b] = band.rows[b]
        while step < end:
            next = min(step + self.piece, end)
            first = step * self.step_numbers
            begin = max(self.result_begin - first, 0)
            size = min(next * self.step_numbers, self.result_end) - first - begin
            for b in range(self.band):
                if rows[b] != NULL:
                    band.rows[b] = pieces + b * self.piece_size - first
            self.some(step, next, band, bias, found)
            for b in range(self.band):
                if rows[b] != NULL:
                    stream(pieces + b * self.piece_size + begin, max(size, 0), 0, rows[b] + first + begin)
            step = next

    cdef void some(
        self, Py_ssize_t step, Py_ssize_t end, const Band* band, const real* bias, vec* found,
    ) noexcept nogil:
        cdef Py_ssize_t next
        while step < end:
            next = self.alike(step, end)
            self.sum_lines(
                (next - step) * band.lines_at_once, step, self.masks_of(step), band, &self.reads[0],
                &self.read_meets[0], self.reads.shape[0], bias, found,
            )
            step = next


cdef inline void common(const Py_ssize_t* other, Py_ssize_t* within) noexcept nogil:
    """What two ranges have in common."""
    within[0], within[1] = max(within[0], other[0]), min(within[1], other[1])

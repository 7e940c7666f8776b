# Forward and adjoint of few channels: lines of the source are read where they lie, and what becomes of them stays in
# registers until it is stored.  `cytconv._stencil` explains the plan.
#
#     source   line 0   A a B b C c D d ...       deal      A B C D     sums       P Q R S    zip
#              line 1   .                         ---->     a b c d     ---->      p q r s    ---->   P p Q q R r S s
#              ...      S streams, a read at                            acc[r] += w[f, r] * stream[f]     R streams
#                       each offset of a tap                            over lines, reads and streams
#
# A *line* runs along the last axis.  Lines of the source that lie outside of it are left out; at the ends of a line,
# vectors are loaded and stored in part: a mask tells which of their lanes exist.

cdef extern from *:
    """
    #define MOST_LINES 128  /* of the source that make up one of the result */

    typedef struct {
        const real *lines[MOST_LINES];  /* of the source, that a line of the result is made of, */
        const real *weights[MOST_LINES];  /* one for each read and pair of streams, */
        Py_ssize_t ahead[MOST_LINES];  /* how far away what comes next begins, 0 if it was there before, */
        Py_ssize_t count;  /* and how many these are */
        const Py_ssize_t *reads;  /* where each read begins in such a line, */
        Py_ssize_t reads_count;
        const real *bias;  /* of each stream of the result */
        int check;  /* whether to look for results that are not finite, */
        vec found;  /* NaN once there was one */
    } Lines;

    typedef unsigned Mask;  /* a bit for each lane of a vector, set if that exists */

    #ifdef __GNUC__
      static inline __attribute__((always_inline)) void sum_lines(
          int, int, int, int, Py_ssize_t, Py_ssize_t, const Mask *, real *, Lines *);
    #else
      static void sum_lines(int, int, int, int, Py_ssize_t, Py_ssize_t, const Mask *, real *, Lines *);
    #endif

    /* Streams of the source and of the result that can be done, and how many vectors of positions in one step: as many
       as lets 16 registers hold sums and samples. */
    #define ALL_STREAMS(CASE) \\
        CASE(1, 1, 4) CASE(1, 2, 4) CASE(2, 1, 4) CASE(1, 3, 2) CASE(3, 1, 2) CASE(1, 4, 2) CASE(4, 1, 2) \\
        CASE(2, 2, 2) CASE(2, 4, 2) CASE(4, 2, 2) CASE(1, 8, 1) CASE(8, 1, 1)
    #define PAIR(S, R) ((S) * 16 + (R))

    static int stream_width(int streams, int results) {
    #define WIDTH(S, R, NV) case PAIR(S, R): return NV;
        switch (PAIR(streams, results)) { ALL_STREAMS(WIDTH) }
        return 0;
    }

    /* `sum_lines` with these numbers as literals. */
    static void sum_steps(
        int streams, int results, int part, Py_ssize_t steps, Py_ssize_t step, const Mask *masks, real *y, Lines *s) {
    #define STEPS(S, R, NV) case PAIR(S, R): \\
        if (part) sum_lines(S, R, NV, 1, steps, step, masks, y, s); \\
        else sum_lines(S, R, NV, 0, steps, step, masks, y, s); \\
        return;
        switch (PAIR(streams, results)) { ALL_STREAMS(STEPS) }
    }

    /* Of the vector that begins there, the lanes that exist, else zeros; and to memory, the others left alone. */
    #if defined(__AVX512F__) && VECTORS
      static inline vec load_part(const real *from, Mask mask) {
          return sizeof(real) == 4 ? (vec) _mm512_maskz_loadu_ps((__mmask16) mask, from)
                                   : (vec) _mm512_maskz_loadu_pd((__mmask8) mask, from);
      }
      static inline void store_part(real *to, Mask mask, vec v) {
          if (sizeof(real) == 4) _mm512_mask_storeu_ps(to, (__mmask16) mask, (__m512) v);
          else _mm512_mask_storeu_pd(to, (__mmask8) mask, (__m512d) v);
      }
    #elif defined(__AVX2__) && VECTORS
      static inline __m256i vector_mask(Mask mask) {
          if (sizeof(real) == 4) {
              __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
              return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int) mask), bits), bits);
          } else {
              __m256i bits = _mm256_setr_epi64x(1, 2, 4, 8);
              return _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(mask), bits), bits);
          }
      }
      static inline vec load_part(const real *from, Mask mask) {
          return sizeof(real) == 4 ? (vec) _mm256_maskload_ps((const float *) from, vector_mask(mask))
                                   : (vec) _mm256_maskload_pd((const double *) from, vector_mask(mask));
      }
      static inline void store_part(real *to, Mask mask, vec v) {
          if (sizeof(real) == 4) _mm256_maskstore_ps((float *) to, vector_mask(mask), (__m256) v);
          else _mm256_maskstore_pd((double *) to, vector_mask(mask), (__m256d) v);
      }
    #else
      static inline vec load_part(const real *from, Mask mask) {
          vec v = ZEROS;
          for (int j = 0; j < (int) LANES; j++) if (mask >> j & 1) ((real *) &v)[j] = from[j];
          return v;
      }
      static inline void store_part(real *to, Mask mask, vec v) {
          for (int j = 0; j < (int) LANES; j++) if (mask >> j & 1) to[j] = ((real *) &v)[j];
      }
    #endif
    """
    enum:
        MOST_LINES
    ctypedef struct Lines:
        const real** lines
        const real** weights
        Py_ssize_t* ahead
        Py_ssize_t count, reads_count
        const Py_ssize_t* reads
        const real* bias
        bint check
        vec found
    ctypedef unsigned int Mask
    int stream_width(int streams, int results) noexcept nogil
    void sum_steps(
        int streams, int results, bint part, Py_ssize_t steps, Py_ssize_t step, const Mask* masks, real* y, Lines* s,
    ) noexcept nogil
    vec load_part(const real* source, Mask mask) noexcept nogil
    void store_part(real* to, Mask mask, vec v) noexcept nogil


cdef inline Mask mask_within(Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    """Of the vector at number `at` of a line that ends at `end`."""
    cdef Py_ssize_t low = min(max(-at, 0), LANES), high = min(max(end - at, 0), LANES)
    return ((<Mask> 1 << high) - 1) & ~((<Mask> 1 << low) - 1)


cdef inline void sum_lines "sum_lines" (
    int S, int R, int NV, bint PART, Py_ssize_t steps, Py_ssize_t step, const Mask* masks, real* y, Lines* s,
) noexcept nogil:
    """So many steps, of NV vectors of positions each; those in PART have `masks`, of the vectors of each
    read and of the result."""
    cdef vec acc[8]
    cdef vec samples[8]
    cdef vec row[8]
    cdef vec checks[4]
    cdef const real* w
    cdef const real* line
    cdef Py_ssize_t e, t, at, first = step * NV * LANES * S, to = step * NV * LANES * R
    cdef int i, v
    for i in range(4):
        checks[i] = ZEROS
    for _ in range(steps):
        for i in range(R * NV):
            acc[i] = ZEROS + s.bias[i // NV]
        for e in range(s.count):
            w = s.weights[e]
            if s.ahead[e]:
                for i in range(S * NV):
                    FETCH_FAR(s.lines[e] + s.ahead[e] + first + i * LANES)
            for t in range(s.reads_count):
                line = s.lines[e] + first + s.reads[t]
                for i in range(S * NV):
                    samples[i] = load_part(line + i * LANES, masks[t * S * NV + i]) if PART else (<const vec*> line)[i]
                for v in range(NV):
                    deal(S, samples + v * S)
                for i in range(S * R * NV):
                    acc[i % (R * NV)] = acc[i % (R * NV)] + (
                        w[i // (R * NV) * R + i // NV % R] * samples[i % NV * S + i // (R * NV)]
                    )
                w += S * R
        if s.check:
            for i in range(R * NV):
                checks[i % 4] = checks[i % 4] + acc[i] * ZEROS
        for v in range(NV):
            for i in range(R):
                row[i] = acc[i * NV + v]
            zip(R, row)
            for i in range(R):
                at = to + (v * R + i) * LANES
                if PART:
                    store_part(y + at, masks[s.reads_count * S * NV + v * R + i], row[i])
                else:
                    (<vec*> (y + at))[0] = row[i]
        first += NV * S * LANES
        to += NV * R * LANES
        if PART:
            masks += (s.reads_count * S + R) * NV
    for i in range(4):
        s.found = s.found + checks[i]


most_lines = MOST_LINES
stream_widths = {  # vectors in a step, by the numbers of streams that can be done
    (s, r): stream_width(s, r) for s in range(1, 16) for r in range(1, 16) if stream_width(s, r)
}


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
cdef class Stencil:
    """The tables of `cytconv._stencil.stencil`, read only; strides and offsets count elements."""

    cdef Py_ssize_t dims, outer  # axes but for that of the lines, and how many positions they have
    cdef Py_ssize_t rows, results, source_group, source_size, result_group, result_size
    cdef Py_ssize_t outer_each, steps_each, piece  # positions and steps of a task; steps that are written at once
    cdef int streams, result_streams
    cdef bint check
    cdef const Py_ssize_t[::1] extent, source_step, result_step, reads
    cdef const Py_ssize_t[::1] row_place, row_range, row_channel, row_line, line_place, line_range, line_ahead
    cdef Py_ssize_t step_size, steps, head, tail  # positions of a step; steps of a line, before `head` and from `tail`
    cdef Py_ssize_t step_masks  # on such that reach beyond its ends, with so many masks each
    cdef Mask[::1] masks
    cdef Py_ssize_t bias_size, scratch_size

    def __init__(self, **tables):
        self.streams, self.result_streams = tables["streams"], tables["result_streams"]
        self.extent, self.source_step, self.result_step = tables["extent"], tables["source_step"], tables["result_step"]
        self.source_group, self.source_size = tables["source_group"], tables["source_size"]
        self.result_group, self.result_size = tables["result_group"], tables["result_size"]
        self.results, self.reads = tables["results"], tables["reads"]
        self.outer_each, self.steps_each, self.piece = tables["outer_each"], tables["steps_each"], tables["piece"]
        self.row_place, self.row_range = tables["row_place"], tables["row_range"]
        self.row_channel, self.row_line = tables["row_channel"], tables["row_line"]
        self.line_place, self.line_range = tables["line_place"], tables["line_range"]
        self.line_ahead, self.check = tables["line_ahead"], tables["check"]
        self.dims, self.rows = self.extent.shape[0], self.row_place.shape[0]
        self.outer = 1
        for n in self.extent:
            self.outer *= n
        self.step_size = stream_width(self.streams, self.result_streams) * LANES
        self.steps, self.head, self.tail = tables["steps"], tables["head"], tables["tail"]
        self.note_masks()
        # Scratch of each worker: the bias of each row, and a piece of a line on its way past the caches.
        self.bias_size = cache_lines(self.rows * self.result_streams)
        self.scratch_size = self.bias_size + self.piece * self.step_size * self.result_streams

    cdef void note_masks(self):
        """For the steps at the ends of a line: a mask for each vector of each read, and for each of the result."""
        cdef Py_ssize_t step, t, i, k = 0
        cdef Py_ssize_t vectors = self.step_size // LANES
        cdef Py_ssize_t loads = vectors * self.streams, stores = vectors * self.result_streams
        self.step_masks = self.reads.shape[0] * loads + stores
        self.masks = cvarray(
            shape=(max(1, (self.head + self.steps - self.tail) * self.step_masks),), itemsize=sizeof(Mask), format="I",
        )
        for step in [*range(self.head), *range(self.tail, self.steps)]:
            for t in range(self.reads.shape[0]):
                for i in range(loads):
                    self.masks[k] = mask_within(self.reads[t] + (step * loads + i) * LANES, self.source_size)
                    k += 1
            for i in range(stores):
                self.masks[k] = mask_within((step * stores + i) * LANES, self.result_size)
                k += 1

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
        cdef Lines s
        cdef Py_ssize_t stretches = parts(self.steps, self.steps_each)
        cdef Py_ssize_t group_tasks = stretches * parts(self.outer, self.outer_each)
        cdef Py_ssize_t group_weights = self.row_line[self.rows] * self.line_weights()
        cdef Py_ssize_t i, group = -1, t = claim(next, 1)
        s.reads, s.reads_count = &self.reads[0], self.reads.shape[0]
        s.check, s.found = self.check, ZEROS
        while t < tasks:
            if group != t // group_tasks:
                group = t // group_tasks
                for i in range(self.rows * self.result_streams):
                    scratch[i] = bias[group * self.results + self.row_channel[i]] if bias != NULL else 0
            self.task(
                t % group_tasks // stretches, t % stretches, source + group * self.source_group,
                weights + group * group_weights, result + group * self.result_group, scratch, &s,
            )
            t = claim(next, 1)
        if self.piece:
            stream_fence()
        return not all_finite(<const real*> &s.found, LANES)

    cdef Py_ssize_t line_weights(self) noexcept nogil:
        """How many weights a line meets."""
        return self.reads.shape[0] * self.streams * self.result_streams

    cdef void task(
        self, Py_ssize_t block, Py_ssize_t stretch, const real* source, const real* weights, real* result,
        real* scratch, Lines* s,
    ) noexcept nogil:
        """Some steps of all rows, at some positions of the outer axes."""
        cdef Py_ssize_t e[MAX_DIMS]
        cdef Py_ssize_t d, i, row, at = block * self.outer_each, rest = at
        cdef const real* x
        cdef real* y
        for d in range(self.dims - 1, -1, -1):
            e[d] = rest % self.extent[d]
            rest = rest // self.extent[d]
        for _ in range(at, min(at + self.outer_each, self.outer)):
            x, y = source, result
            for d in range(self.dims):
                x += e[d] * self.source_step[d]
                y += e[d] * self.result_step[d]
            for row in range(self.rows):
                if not self.exists(&self.row_range[0] + 2 * row * self.dims, e):
                    continue
                s.count = 0
                for i in range(self.row_line[row], self.row_line[row + 1]):
                    if self.exists(&self.line_range[0] + 2 * i * self.dims, e):
                        s.lines[s.count] = x + self.line_place[i]
                        s.weights[s.count] = weights + i * self.line_weights()
                        s.ahead[s.count] = self.line_ahead[i]
                        s.count += 1
                s.bias = scratch + row * self.result_streams
                self.line(stretch * self.steps_each, y + self.row_place[row], scratch + self.bias_size, s)
            advance(self.dims, &self.extent[0] if self.dims else NULL, e)

    cdef bint exists(self, const Py_ssize_t* within, const Py_ssize_t* e) noexcept nogil:
        """Whether there is a line at this position of the outer axes."""
        cdef Py_ssize_t d
        for d in range(self.dims):
            if not within[2 * d] <= e[d] < within[2 * d + 1]:
                return False
        return True

    cdef void line(self, Py_ssize_t step, real* y, real* scratch, Lines* s) noexcept nogil:
        """Some steps of one line of the result; a piece at a time if it goes past the caches."""
        cdef Py_ssize_t end = min(step + self.steps_each, self.steps), next, first, last
        if self.piece == 0:
            self.some(step, end, y, s)
            return
        while step < end:
            next = min(step + self.piece, end)
            first = step * self.step_size * self.result_streams
            last = min(next * self.step_size * self.result_streams, self.result_size)
            self.some(step, next, scratch - first, s)
            stream(scratch, max(last - first, 0), 0, y + first)
            step = next

    cdef void some(self, Py_ssize_t step, Py_ssize_t end, real* y, Lines* s) noexcept nogil:
        """Steps of whole vectors where nothing reaches beyond the ends of a line, and in part elsewhere."""
        cdef Py_ssize_t next, before
        while step < end:
            if self.head <= step < self.tail:
                next = min(self.tail, end)
                sum_steps(self.streams, self.result_streams, False, next - step, step, NULL, y, s)
            else:
                next = min(self.head, end) if step < self.head else end
                before = step if step < self.head else step - self.tail + self.head  # that are in part
                sum_steps(
                    self.streams, self.result_streams, True, next - step, step, &self.masks[before * self.step_masks],
                    y, s,
                )
            step = next


cdef inline Py_ssize_t parts(Py_ssize_t n, Py_ssize_t each) noexcept nogil:
    return (n + each - 1) // each

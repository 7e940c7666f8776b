# Forward and adjoint of few channels: lines of the source are read where they lie, and what becomes of them stays in
# registers until it is stored.  `cytconv._stencil` explains the plan.
#
#     source   line 0   A a B b C c D d ...       deal      A B C D     sums       P Q R S    zip
#              line 1   .                         ---->     a b c d     ---->      p q r s    ---->   P p Q q R r S s
#              ...      S streams, a read at                            acc[r] += w[f, r] * stream[f]     R streams
#                       each offset of a tap                            over lines, reads and streams
#
# A *line* runs along the last axis.  Lines of the source that lie outside of it are left out; where a line itself ends,
# vectors are copied with zeros around them.

cdef extern from *:
    """
    #define MOST_LINES 128  /* of the source that make up one of the result */
    #ifdef __GNUC__
      #define FETCH_FAR(p) __builtin_prefetch(p, 0, 2)  /* to L2 */
    #else
      #define FETCH_FAR(p)
    #endif

    typedef struct {
        const real *lines[MOST_LINES];  /* of the source, that a line of the result is made of, */
        const real *weights[MOST_LINES];  /* one for each read and pair of streams, */
        Py_ssize_t ahead[MOST_LINES];  /* how far away what comes next begins, 0 if it was there before, */
        Py_ssize_t count;  /* and how many these are */
        Py_ssize_t source_size;  /* numbers of such a line */
        Py_ssize_t result_start;  /* of position 0 in a line of the result */
        const Py_ssize_t *reads;
        Py_ssize_t number;  /* of reads */
        const real *bias;  /* of each stream of the result */
        int check;  /* whether to look for results that are not finite, */
        vec found;  /* NaN once there was one */
    } Lines;

    typedef unsigned Lanes;  /* a bit for each lane of a vector that exists */

    #ifdef __GNUC__
      static inline __attribute__((always_inline)) void stencil(
          int, int, int, int, Py_ssize_t, Py_ssize_t, const Lanes *, real *,
          Lines *);
    #endif

    /* Those lanes of the vector that begins there, the others zero; and to memory, the others left alone. */
    #if defined(__AVX512F__) && VECTORS
      static inline vec load_lanes(const real *from, Lanes lanes) {
          return sizeof(real) == 4 ? (vec) _mm512_maskz_loadu_ps((__mmask16) lanes, from)
                                   : (vec) _mm512_maskz_loadu_pd((__mmask8) lanes, from);
      }
      static inline void store_lanes(real *to, Lanes lanes, vec v) {
          if (sizeof(real) == 4) _mm512_mask_storeu_ps(to, (__mmask16) lanes, (__m512) v);
          else _mm512_mask_storeu_pd(to, (__mmask8) lanes, (__m512d) v);
      }
    #elif defined(__AVX2__) && VECTORS
      static inline __m256i mask_of(Lanes lanes) {
          if (sizeof(real) == 4) {
              __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
              return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int) lanes), bits), bits);
          } else {
              __m256i bits = _mm256_setr_epi64x(1, 2, 4, 8);
              return _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(lanes), bits), bits);
          }
      }
      static inline vec load_lanes(const real *from, Lanes lanes) {
          return sizeof(real) == 4 ? (vec) _mm256_maskload_ps((const float *) from, mask_of(lanes))
                                   : (vec) _mm256_maskload_pd((const double *) from, mask_of(lanes));
      }
      static inline void store_lanes(real *to, Lanes lanes, vec v) {
          if (sizeof(real) == 4) _mm256_maskstore_ps((float *) to, mask_of(lanes), (__m256) v);
          else _mm256_maskstore_pd((double *) to, mask_of(lanes), (__m256d) v);
      }
    #else
      static inline vec load_lanes(const real *from, Lanes lanes) {
          vec v = ZEROS;
          for (int j = 0; j < (int) LANES; j++) if (lanes >> j & 1) ((real *) &v)[j] = from[j];
          return v;
      }
      static inline void store_lanes(real *to, Lanes lanes, vec v) {
          for (int j = 0; j < (int) LANES; j++) if (lanes >> j & 1) to[j] = ((real *) &v)[j];
      }
    #endif
    """
    ctypedef struct Lines:
        const real** lines
        const real** weights
        Py_ssize_t* ahead
        Py_ssize_t count, source_size, result_start
        const Py_ssize_t* reads
        Py_ssize_t number
        const real* bias
        bint check
        vec found
    ctypedef unsigned int Lanes
    vec load_lanes(const real* source, Lanes lanes) noexcept nogil
    void store_lanes(real* to, Lanes lanes, vec v) noexcept nogil
    void FETCH_FAR(const real* p) noexcept nogil


cdef inline Lanes lanes_within(Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    """Lanes of the vector at number `at` of a line that ends at `end`."""
    cdef Py_ssize_t low = min(max(-at, 0), LANES), high = min(max(end - at, 0), LANES)
    return ((<Lanes> 1 << high) - 1) & ~((<Lanes> 1 << low) - 1)


cdef inline void stencil "stencil" (
    int S, int R, int NV, bint PART, Py_ssize_t steps, Py_ssize_t step, const Lanes* there, real* y, Lines* s,
) noexcept nogil:
    """So many steps, of NV vectors of positions each; `there` tells which lanes exist of steps that are in PART."""
    cdef vec acc[8]
    cdef vec samples[8]
    cdef vec row[8]
    cdef vec checks[4]
    cdef const real* w
    cdef const real* line
    cdef Py_ssize_t e, t, at, first = step * NV * LANES * S, to = s.result_start + step * NV * LANES * R
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
            for t in range(s.number):
                line = s.lines[e] + first + s.reads[t]
                for i in range(S * NV):
                    samples[i] = load_lanes(line + i * LANES, there[t * S * NV + i]) if PART else (<const vec*> line)[i]
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
                    store_lanes(y + at, there[s.number * S * NV + v * R + i], row[i])
                else:
                    (<vec*> (y + at))[0] = row[i]
        first += NV * S * LANES
        to += NV * R * LANES
        if PART:
            there += (s.number * S + R) * NV
    for i in range(4):
        s.found = s.found + checks[i]


# The numbers of streams that there are, and how many vectors of positions are done at a time.

stencils = {(s, r): stencil_width(s, r) for s in (1, 2, 3, 4, 8) for r in (1, 2, 3, 4, 8) if stencil_width(s, r)}


cdef int stencil_width(int s, int r) noexcept nogil:
    if s * r <= 2:
        return 4
    if s == r == 2 or ((s == 1 or r == 1) and s * r <= 4) or s * r == 8:
        return 1 if s == 8 or r == 8 else 2
    return 0


cdef void stencil_steps(
    int streams, int results, bint part, Py_ssize_t steps, Py_ssize_t step, const Lanes* there, real* y, Lines* s,
) noexcept nogil:
    if streams == 1 and results == 1:
        if part:
            stencil(1, 1, 4, True, steps, step, there, y, s)
        else:
            stencil(1, 1, 4, False, steps, step, there, y, s)
    elif streams == 1 and results == 2:
        if part:
            stencil(1, 2, 4, True, steps, step, there, y, s)
        else:
            stencil(1, 2, 4, False, steps, step, there, y, s)
    elif streams == 2 and results == 1:
        if part:
            stencil(2, 1, 4, True, steps, step, there, y, s)
        else:
            stencil(2, 1, 4, False, steps, step, there, y, s)
    elif streams == 1 and results == 3:
        if part:
            stencil(1, 3, 2, True, steps, step, there, y, s)
        else:
            stencil(1, 3, 2, False, steps, step, there, y, s)
    elif streams == 3 and results == 1:
        if part:
            stencil(3, 1, 2, True, steps, step, there, y, s)
        else:
            stencil(3, 1, 2, False, steps, step, there, y, s)
    elif streams == 1 and results == 4:
        if part:
            stencil(1, 4, 2, True, steps, step, there, y, s)
        else:
            stencil(1, 4, 2, False, steps, step, there, y, s)
    elif streams == 4 and results == 1:
        if part:
            stencil(4, 1, 2, True, steps, step, there, y, s)
        else:
            stencil(4, 1, 2, False, steps, step, there, y, s)
    elif streams == 2 and results == 2:
        if part:
            stencil(2, 2, 2, True, steps, step, there, y, s)
        else:
            stencil(2, 2, 2, False, steps, step, there, y, s)
    elif streams == 2 and results == 4:
        if part:
            stencil(2, 4, 2, True, steps, step, there, y, s)
        else:
            stencil(2, 4, 2, False, steps, step, there, y, s)
    elif streams == 4 and results == 2:
        if part:
            stencil(4, 2, 2, True, steps, step, there, y, s)
        else:
            stencil(4, 2, 2, False, steps, step, there, y, s)
    elif streams == 1 and results == 8:
        if part:
            stencil(1, 8, 1, True, steps, step, there, y, s)
        else:
            stencil(1, 8, 1, False, steps, step, there, y, s)
    elif streams == 8 and results == 1:
        if part:
            stencil(8, 1, 1, True, steps, step, there, y, s)
        else:
            stencil(8, 1, 1, False, steps, step, there, y, s)


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
    cdef Py_ssize_t rows, positions, number, results, source_group, source_size, result_group, result_start, result_size
    cdef Py_ssize_t each, stretch, piece  # positions of the outer axes in a task, and steps; steps written at once
    cdef int streams, result_streams
    cdef bint check
    cdef const Py_ssize_t[::1] extent, source_step, result_step, reads
    cdef const Py_ssize_t[::1] row_place, row_range, row_channel, row_line, line_place, line_range, line_ahead
    cdef Py_ssize_t vectors, all_steps, head, tail  # of a step; of a line; those before `head` and from `tail` on
    cdef Py_ssize_t lanes  # reach beyond its ends: so many numbers say for one of them
    cdef Lanes[::1] there  # which lanes of their vectors exist
    cdef Py_ssize_t bias_size, scratch_size

    def __init__(self, **tables):
        self.streams, self.result_streams = tables["streams"], tables["result_streams"]
        self.extent, self.source_step, self.result_step = tables["extent"], tables["source_step"], tables["result_step"]
        self.source_group, self.source_size = tables["source_group"], tables["source_size"]
        self.result_group, self.result_size = tables["result_group"], tables["result_size"]
        self.result_start, self.results = tables["result_start"], tables["results"]
        self.reads, self.number = tables["reads"], tables["reads"].shape[0]
        self.each, self.stretch, self.piece = tables["each"], tables["stretch"], tables["piece"]
        self.row_place, self.row_range = tables["row_place"], tables["row_range"]
        self.row_channel, self.row_line = tables["row_channel"], tables["row_line"]
        self.line_place, self.line_range = tables["line_place"], tables["line_range"]
        self.line_ahead, self.check = tables["line_ahead"], tables["check"]
        self.dims, self.rows = self.extent.shape[0], self.row_place.shape[0]
        self.outer, self.positions = 1, tables["positions"]
        for n in self.extent:
            self.outer *= n
        self.vectors = stencil_width(self.streams, self.result_streams)
        self.note_lanes(tables["low"], tables["high"])
        # Scratch of each worker: the bias of each row, and a piece of a line on its way past the caches.
        self.bias_size = cache_lines(self.rows * self.result_streams)
        self.scratch_size = self.bias_size + self.piece * self.vectors * LANES * self.result_streams

    cdef void note_lanes(self, Py_ssize_t low, Py_ssize_t high):
        """Which steps have positions outside of `low` to `high`, and which lanes of their vectors exist."""
        cdef Py_ssize_t each = self.vectors * LANES, step, t, i, first, k = 0
        cdef Py_ssize_t end = min(self.result_size, self.result_start + self.positions * self.result_streams)
        self.all_steps = (self.positions + each - 1) // each
        self.head = (min(low, self.positions) + each - 1) // each
        self.tail = max(self.head, high // each)
        self.lanes = (self.number * self.streams + self.result_streams) * self.vectors
        self.there = cvarray(
            shape=(max(1, (self.head + self.all_steps - self.tail) * self.lanes),), itemsize=sizeof(Lanes), format="I",
        )
        for step in range(self.all_steps):
            if self.head <= step < self.tail:
                continue
            for t in range(self.number):
                first = step * each * self.streams + self.reads[t]
                for i in range(self.streams * self.vectors):
                    self.there[k] = lanes_within(first + i * LANES, self.source_size)
                    k += 1
            first = step * each * self.result_streams + self.result_start
            for i in range(self.result_streams * self.vectors):
                self.there[k] = lanes_within(first + i * LANES, end)
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
        if workers == 1:
            infinite = self.work(tasks, &next, from_.first, gathered, b.first, to.first, memory.first)
        else:
            for worker in prange(workers, nogil=True, schedule="static", chunksize=1, num_threads=workers):
                infinite += self.work(
                    tasks, &next, from_.first, gathered, b.first, to.first, memory.first + worker * self.scratch_size,
                )
        return infinite == 0

    cdef Py_ssize_t work(
        self, Py_ssize_t tasks, Py_ssize_t* next, const real* source, const real* weights, const real* bias,
        real* result, real* scratch,
    ) noexcept nogil:
        """What one worker does; tells whether some result is not finite."""
        cdef Lines s
        cdef Py_ssize_t stretches = (self.all_steps + self.stretch - 1) // self.stretch
        cdef Py_ssize_t pieces = stretches * ((self.outer + self.each - 1) // self.each)
        cdef Py_ssize_t size = self.row_line[self.rows] * self.number * self.streams * self.result_streams
        cdef Py_ssize_t i, group = -1, t = claim(next, 1)
        s.source_size, s.result_start = self.source_size, self.result_start
        s.reads, s.number = &self.reads[0], self.number
        s.check, s.found = self.check, ZEROS
        while t < tasks:
            if group != t // pieces:
                group = t // pieces
                for i in range(self.rows * self.result_streams):
                    scratch[i] = bias[group * self.results + self.row_channel[i]] if bias != NULL else 0
            self.task(
                t % pieces // stretches, t % stretches, source + group * self.source_group, weights + group * size,
                result + group * self.result_group, scratch, &s,
            )
            t = claim(next, 1)
        if self.piece:
            stream_fence()
        return not all_finite(<const real*> &s.found, LANES)

    cdef void task(
        self, Py_ssize_t block, Py_ssize_t stretch, const real* source, const real* weights, real* result,
        real* scratch, Lines* s,
    ) noexcept nogil:
        """A stretch of all rows, at some positions of the outer axes."""
        cdef Py_ssize_t e[MAX_DIMS]
        cdef Py_ssize_t d, i, row, at = block * self.each, rest = at
        cdef Py_ssize_t size = self.number * self.streams * self.result_streams
        cdef const real* x
        cdef real* y
        for d in range(self.dims - 1, -1, -1):
            e[d] = rest % self.extent[d]
            rest = rest // self.extent[d]
        for _ in range(at, min(at + self.each, self.outer)):
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
                        s.weights[s.count] = weights + i * size
                        s.ahead[s.count] = self.line_ahead[i]
                        s.count += 1
                s.bias = scratch + row * self.result_streams
                self.line(stretch * self.stretch, y + self.row_place[row], scratch + self.bias_size, s)
            advance(self.dims, &self.extent[0] if self.dims else NULL, e)

    cdef bint exists(self, const Py_ssize_t* within, const Py_ssize_t* e) noexcept nogil:
        """Whether there is a line at this position of the outer axes."""
        cdef Py_ssize_t d
        for d in range(self.dims):
            if not within[2 * d] <= e[d] < within[2 * d + 1]:
                return False
        return True

    cdef void line(self, Py_ssize_t step, real* y, real* scratch, Lines* s) noexcept nogil:
        """A stretch of one line of the result; a piece at a time if it goes past the caches."""
        cdef Py_ssize_t numbers = self.vectors * LANES * self.result_streams, first, last
        cdef Py_ssize_t end = min(step + self.stretch, self.all_steps), next
        if self.piece == 0:
            self.steps(step, end, y, s)
            return
        while step < end:
            next = min(step + self.piece, end)
            first = max(self.result_start + step * numbers, 0)
            last = min(self.result_start + min(next * numbers, self.positions * self.result_streams), self.result_size)
            self.steps(step, next, scratch - first, s)
            stream(scratch, max(last - first, 0), 0, y + first)
            step = next

    cdef void steps(self, Py_ssize_t step, Py_ssize_t end, real* y, Lines* s) noexcept nogil:
        """Whole vectors where nothing reaches beyond the ends of a line, and parts of them elsewhere."""
        cdef Py_ssize_t next, part
        while step < end:
            next = end
            part = step if step < self.head else step - self.tail + self.head
            if step < self.tail:
                next = min(self.head if step < self.head else self.tail, end)
            if self.head <= step < self.tail:
                stencil_steps(self.streams, self.result_streams, False, next - step, step, NULL, y, s)
            else:
                stencil_steps(
                    self.streams, self.result_streams, True, next - step, step, &self.there[part * self.lanes], y, s,
                )
            step = next

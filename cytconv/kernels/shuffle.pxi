# Phases of a line taken apart, and put together again; the shuffles of `cytconv._phases` on whole vectors.
#
#     deal    a A b B c C d D   -->   a b c d          zip is its inverse.  By 4, 8 and 16 it is done by halves, the
#                                     A B C D          even ones and the odd ones, each of which is dealt in turn.

cdef extern from *:
    """
    typedef struct {  /* of a box along one dim */
        Py_ssize_t low, high;  /* positions that are in the array, */
        Py_ssize_t size;  /* of so many */
        Py_ssize_t step, pitch;  /* from one to the next, in the array and in a plane */
    } Margins;

    typedef struct {  /* lines of an array that become rows of planes */
        const real *line;
        real *to;
        const Py_ssize_t *channel;  /* where each channel begins in the array */
        Py_ssize_t channels, channel_pitch;  /* how many there are; from one to the next here */
        Margins slice, row;
        Py_ssize_t low, high;  /* numbers of a line that are in the array; */
        Py_ssize_t n, plane_pitch;  /* positions that it becomes, of planes so far from each other */
        Py_ssize_t ahead;  /* how far away the line is that is fetched meanwhile, of the last channel; 0 if none is */
    } Rows;

    /* Positions of a row whose vectors are whole, `step` numbers each, and where the others after them begin. */
    static inline void whole_positions(
        const Rows *r, Py_ssize_t step, Py_ssize_t *begin, Py_ssize_t *end, Py_ssize_t *tail) {
        *begin = (r->low + step * LANES - 1) / (step * LANES) * LANES;
        *end = r->high / (step * LANES) * LANES;
        if (*end < *begin) *end = *begin;
        *tail = *begin < *end ? r->high / step : *begin;
    }

    #if VECTORS
      #define SHUFFLES 1
      typedef __typeof__(__builtin_choose_expr(sizeof(real) == 4, (int) 0, (long long) 0)) lane_number;
      typedef lane_number lane_numbers __attribute__((vector_size(VECTOR_BYTES)));
      #define INLINE static inline __attribute__((always_inline)) void

      /* F(0, n), F(1, n), ..., one for each lane. */
    #if VECTOR_BYTES / REAL_BYTES == 16
      #define EACH_LANE(F, n) \\
          F(0, n), F(1, n), F(2, n), F(3, n), F(4, n), F(5, n), F(6, n), F(7, n), \\
          F(8, n), F(9, n), F(10, n), F(11, n), F(12, n), F(13, n), F(14, n), F(15, n)
    #elif VECTOR_BYTES / REAL_BYTES == 8
      #define EACH_LANE(F, n) F(0, n), F(1, n), F(2, n), F(3, n), F(4, n), F(5, n), F(6, n), F(7, n)
    #elif VECTOR_BYTES / REAL_BYTES == 4
      #define EACH_LANE(F, n) F(0, n), F(1, n), F(2, n), F(3, n)
    #else
      #define EACH_LANE(F, n) F(0, n), F(1, n)
    #endif

      /* In lane j, number F(j, n) of those in a and b, counted through both; and by numbers that are no literals. */
    #ifdef __clang__
      #define PICK(a, b, F, n) __builtin_shufflevector(a, b, EACH_LANE(F, n))
      static inline vec pick(vec a, vec b, lane_numbers which) {
      #ifdef __AVX512F__
          return REAL_BYTES == 4 ? (vec) _mm512_permutex2var_ps((__m512) a, (__m512i) which, (__m512) b)
                                 : (vec) _mm512_permutex2var_pd((__m512d) a, (__m512i) which, (__m512d) b);
      #else
          vec both[2] = {a, b};
          for (int j = 0; j < (int) LANES; j++) a[j] = ((real *) both)[which[j]];
          return a;
      #endif
      }
    #else
      #define PICK(a, b, F, n) __builtin_shuffle(a, b, (lane_numbers) {EACH_LANE(F, n)})
      #define pick(a, b, which) __builtin_shuffle(a, b, which)
    #endif

      #define DEALT_2(j, odd) (2 * (j) + (odd))
      #define ZIPPED_2(j, high) ((j) / 2 + (j) % 2 * (int) LANES + (high) * (int) LANES / 2)
      INLINE deal_2(vec *v) {
          vec even = PICK(v[0], v[1], DEALT_2, 0), odd = PICK(v[0], v[1], DEALT_2, 1);
          v[0] = even, v[1] = odd;
      }
      INLINE zip_2(vec *v) {
          vec low = PICK(v[0], v[1], ZIPPED_2, 0), high = PICK(v[0], v[1], ZIPPED_2, 1);
          v[0] = low, v[1] = high;
      }

      /* By three: stream or vector n, of what comes from the first two vectors, then of that and of the third. */
      #define DEALT_3(j, n) ((n) + 3 * (j))
      #define ZIPPED_3(j, n) (((n) * (int) LANES + (j)) / 3 + ((n) * (int) LANES + (j)) % 3 * (int) LANES)
      #define FROM_TWO(at) ((at) < 2 * (int) LANES ? (at) : 0)
      #define AND_THIRD(j, at) ((at) < 2 * (int) LANES ? (j) : (at) - (int) LANES)
      #define DEALT_FROM_TWO(j, n) FROM_TWO(DEALT_3(j, n))
      #define DEALT_AND_THIRD(j, n) AND_THIRD(j, DEALT_3(j, n))
      #define ZIPPED_FROM_TWO(j, n) FROM_TWO(ZIPPED_3(j, n))
      #define ZIPPED_AND_THIRD(j, n) AND_THIRD(j, ZIPPED_3(j, n))
      #define BY_THREE(NAME, HOW) \\
          INLINE NAME(vec *v) { \\
              vec a = PICK(PICK(v[0], v[1], HOW##_FROM_TWO, 0), v[2], HOW##_AND_THIRD, 0); \\
              vec b = PICK(PICK(v[0], v[1], HOW##_FROM_TWO, 1), v[2], HOW##_AND_THIRD, 1); \\
              vec c = PICK(PICK(v[0], v[1], HOW##_FROM_TWO, 2), v[2], HOW##_AND_THIRD, 2); \\
              v[0] = a, v[1] = b, v[2] = c; \\
          }
      BY_THREE(deal_3, DEALT)
      BY_THREE(zip_3, ZIPPED)

      /* By twice as many. */
      #define BY_HALVES(N, HALF) \\
          INLINE deal_##N(vec *v) { \\
              vec even[HALF], odd[HALF]; \\
              for (int i = 0; i < HALF; i++) { \\
                  deal_2(v + 2 * i); \\
                  even[i] = v[2 * i], odd[i] = v[2 * i + 1]; \\
              } \\
              deal_##HALF(even); \\
              deal_##HALF(odd); \\
              for (int i = 0; i < HALF; i++) v[2 * i] = even[i], v[2 * i + 1] = odd[i]; \\
          } \\
          INLINE zip_##N(vec *v) { \\
              vec even[HALF], odd[HALF]; \\
              for (int i = 0; i < HALF; i++) even[i] = v[2 * i], odd[i] = v[2 * i + 1]; \\
              zip_##HALF(even); \\
              zip_##HALF(odd); \\
              for (int i = 0; i < HALF; i++) { \\
                  v[2 * i] = even[i], v[2 * i + 1] = odd[i]; \\
                  zip_2(v + 2 * i); \\
              } \\
          }
      BY_HALVES(4, 2)
      BY_HALVES(6, 3)
      BY_HALVES(8, 4)
      BY_HALVES(16, 8)

      #define LONG 16 /* vectors, from which on it is faster to call memcpy */

      /* Vectors of positions: all N phases of a line, or the first ones alone, and back. */
      #define LINES(N) \\
          INLINE deal_part_##N( \\
              int phases, const real *line, Py_ssize_t p, const Mask *masks, real *to, Py_ssize_t pitch) { \\
              vec v[N]; \\
              for (int i = 0; i < N; i++) v[i] = load_part(line + p * N + i * LANES, masks[i]); \\
              deal_##N(v); \\
              for (int i = 0; i < phases; i++) *(vec *) (to + i * pitch + p) = v[i]; \\
          } \\
          INLINE deal_whole_##N(int phases, const real *line, Py_ssize_t p, real *to, Py_ssize_t pitch) { \\
              vec v[N]; \\
              for (int i = 0; i < N; i++) v[i] = ((const vec *) (line + p * N))[i]; \\
              deal_##N(v); \\
              for (int i = 0; i < phases; i++) *(vec *) (to + i * pitch + p) = v[i]; \\
          } \\
          static void deal_line_##N(const real *line, Py_ssize_t n, real *to, Py_ssize_t pitch) { \\
              Py_ssize_t p = 0; \\
              Mask masks[N]; \\
              for (; p + LANES <= n; p += LANES) deal_whole_##N(N, line, p, to, pitch); \\
              for (int i = 0; i < N; i++) masks[i] = first_lanes((n - p) * N - i * LANES); \\
              if (p < n) deal_part_##N(N, line, p, masks, to, pitch); \\
          } \\
          INLINE deal_row_##N( \\
              int phases, const Rows *r, const real *line, const Mask *first, const Mask *last, real *to) { \\
              /* The last vector that is whole may overlap the one before: one of which some lanes exist waits for \\
                 the memory behind the line, too. */ \\
              Py_ssize_t low = r->low, high = r->high, pitch = r->plane_pitch, begin, end, tail, p; \\
              whole_positions(r, N, &begin, &end, &tail); \\
              if (begin > 0) deal_part_##N(phases, line, 0, first, to, pitch); \\
              for (p = LANES; p < begin && p < r->n; p += LANES) { \\
                  Mask masks[N]; \\
                  for (int i = 0; i < N; i++) masks[i] = mask_within(p * N + i * LANES, low, high); \\
                  deal_part_##N(phases, line, p, masks, to, pitch); \\
              } \\
              if (N == 1 && end - begin > LONG * LANES) \\
                  memcpy(to + begin, line + begin, (end - begin) * sizeof(real)); \\
              else for (p = begin; p < end; p += LANES) deal_whole_##N(phases, line, p, to, pitch); \\
              if (end < tail) deal_whole_##N(phases, line, tail - LANES, to, pitch); \\
              p = tail; \\
              if (p * N < high) deal_part_##N(phases, line, p, last, to, pitch), p += LANES; \\
              for (; p < r->n; p += LANES) \\
                  for (int i = 0; i < phases; i++) *(vec *) (to + i * pitch + p) = ZEROS; \\
          } \\
          INLINE deal_rows_##N(int phases, const Rows *r) { \\
              Py_ssize_t begin, end, tail; \\
              whole_positions(r, N, &begin, &end, &tail); \\
              Mask first[N], last[N]; \\
              for (int i = 0; i < N; i++) { \\
                  first[i] = mask_within(i * LANES, r->low, r->high); \\
                  last[i] = mask_within(tail * N + i * LANES, r->low, r->high); \\
              } \\
              for (Py_ssize_t c = 0; c < r->channels; c++) { \\
                  Py_ssize_t ahead = c + 1 < r->channels ? r->channel[c + 1] - r->channel[c] : r->ahead; \\
                  for (Py_ssize_t s = 0; s < r->slice.size; s++) { \\
                      int outside = s < r->slice.low || s >= r->slice.high; \\
                      const real *line = r->line + r->channel[c] + s * r->slice.step; \\
                      real *to = r->to + c * r->channel_pitch + s * r->slice.pitch; \\
                      for (Py_ssize_t i = 0; i < r->row.size; i++, line += r->row.step, to += r->row.pitch) { \\
                          if (outside || i < r->row.low || i >= r->row.high) { \\
                              for (Py_ssize_t p = 0; p < r->n; p += LANES) \\
                                  for (int f = 0; f < phases; f++) *(vec *) (to + f * r->plane_pitch + p) = ZEROS; \\
                          } else { \\
                              if (ahead) fetch_line(line + ahead, 1, r->low, r->high); \\
                              deal_row_##N(phases, r, line, first, last, to); \\
                          } \\
                      } \\
                  } \\
              } \\
          } \\
          static void zip_lines_##N( \\
              const real *c, const Py_ssize_t *place, Py_ssize_t n, const real *bias, real *y) { \\
              const real *row[N]; \\
              for (int i = 0; i < N; i++) row[i] = c + place[i]; \\
              Py_ssize_t p = 0; \\
              for (; p + LANES <= n; p += LANES, y += N * LANES) { \\
                  vec v[N]; \\
                  for (int i = 0; i < N; i++) v[i] = *(const vec *) (row[i] + p) + bias[i]; \\
                  zip_##N(v); \\
                  for (int i = 0; i < N; i++) ((vec *) y)[i] = v[i]; \\
              } \\
              if (p < n) { \\
                  vec v[N]; \\
                  for (int i = 0; i < N; i++) v[i] = *(const vec *) (row[i] + p) + bias[i]; \\
                  zip_##N(v); \\
                  for (int i = 0; i < N; i++) \\
                      store_part(y + i * LANES, first_lanes((n - p) * N - i * LANES), v[i]); \\
              } \\
          }
      INLINE deal_1(vec *v) { (void) v; }
      INLINE zip_1(vec *v) { (void) v; }
      #define EACH(CASE) CASE(1) CASE(2) CASE(3) CASE(4) CASE(6) CASE(8) CASE(16)
      LINES(1)
      LINES(2)
      LINES(3)
      LINES(4)
      LINES(6)
      LINES(8)
      LINES(16)

      /* As many vectors as one has lanes: rows become columns. */
      INLINE transpose(vec *v) {
          if (LANES == 16) deal_16(v);
          else if (LANES == 8) deal_8(v);
          else if (LANES == 4) deal_4(v);
          else deal_2(v);
      }
    #else
      #define SHUFFLES 0
    #endif

    /* v[i] = numbers i, i + n, i + 2n, ... of the n vectors v, and back; n is a literal, 8 at most. */
    #define SHUFFLE(NAME, FROM, TO) \\
        static INLINE_VECTORS void NAME(int n, vec *v) { \\
            BY_VECTORS(NAME) \\
            real line[8 * LANES]; \\
            memcpy(line, v, n * sizeof(vec)); \\
            for (int i = 0; i < n; i++) \\
                for (int j = 0; j < (int) LANES; j++) ((real *) v)[TO] = line[FROM]; \\
        }
    #if SHUFFLES
      #define INLINE_VECTORS inline __attribute__((always_inline))
      #define BY_VECTORS(NAME) \\
          switch (n) { \\
          case 1: return; \\
          case 2: NAME##_2(v); return; \\
          case 3: NAME##_3(v); return; \\
          case 4: NAME##_4(v); return; \\
          case 6: NAME##_6(v); return; \\
          case 8: NAME##_8(v); return; \\
          }
    #else
      #define INLINE_VECTORS
      #define BY_VECTORS(NAME)
    #endif
    SHUFFLE(deal, j * n + i, i * LANES + j)
    SHUFFLE(zip, i * LANES + j, j * n + i)

    /* to[i*plane_pitch + p] = line[p*step + i], or 0 where the array has no such number, for p < n and to the end of
       that vector: of so many phases, no more than the step is long.  Tells whether there is a way. */
    static int deal_rows(Py_ssize_t phases, Py_ssize_t step, const Rows *r) {
    #if SHUFFLES
      #define DEAL(N) case N: \\
          if (phases == 1) deal_rows_##N(1, r); \\
          else if (phases == N) deal_rows_##N(N, r); \\
          else deal_rows_##N(phases, r); \\
          return 1;
        switch (step) { EACH(DEAL) }
    #endif
        return 0;
    }

    /* The same of one line that has all numbers: to[i*pitch + p] = line[p*phases + i]. */
    static int deal_line(Py_ssize_t phases, const real *line, Py_ssize_t n, real *to, Py_ssize_t pitch) {
    #if SHUFFLES
      #define DEAL_LINE(N) case N: deal_line_##N(line, n, to, pitch); return 1;
        switch (phases) { EACH(DEAL_LINE) }
    #endif
        return 0;
    }

    /* to[c*channel_pitch + p] = line[p*step + c] of channels that follow each other at each position, or 0 where the
       array has no such position; for p < n and to the end of that vector. */
    static void deal_channels(Py_ssize_t step, Py_ssize_t low, Py_ssize_t high, const Rows *r) {
    #if SHUFFLES
        for (Py_ssize_t s = 0; s < r->slice.size; s++) {
            int outside = s < r->slice.low || s >= r->slice.high;
            for (Py_ssize_t i = 0; i < r->row.size; i++) {
                int inside = !outside && i >= r->row.low && i < r->row.high;
                const real *line = r->line + r->channel[0] + s * r->slice.step + i * r->row.step;
                real *to = r->to + s * r->slice.pitch + i * r->row.pitch;
                for (Py_ssize_t c = 0; c < r->channels; c += LANES) {
                    Py_ssize_t channels = r->channels - c;
                    Mask mask = first_lanes(channels);
                    for (Py_ssize_t p = 0; p < r->n; p += LANES) {
                        Py_ssize_t first = inside && p < low ? low - p : 0, end = inside ? high - p : 0;
                        vec v[16];
                        UNROLLED
                        for (int j = 0; j < (int) LANES; j++)
                            v[j] = j >= first && j < end ? load_part(line + (p + j) * step + c, mask) : ZEROS;
                        transpose(v);
                        real *plane = to + c * r->channel_pitch + p;
                        UNROLLED
                        for (int j = 0; j < (int) LANES; j++, plane += r->channel_pitch)
                            if (j < channels) *(vec *) plane = v[j];
                    }
                }
            }
        }
    #else
        (void) step, (void) low, (void) high, (void) r;
    #endif
    }

    /* y[p*step + i] = c[place[i] + p] + bias[i] of any number of rows. */
    static int zip_rows(
        Py_ssize_t rows, const real *c, const Py_ssize_t *place, Py_ssize_t n, const real *bias, real *y,
        Py_ssize_t step) {
    #if SHUFFLES
        for (Py_ssize_t p = 0; p < n; p += LANES) {
            for (Py_ssize_t i = 0; i < rows; i += LANES) {
                Py_ssize_t together = rows - i, positions = n - p;
                Mask mask = first_lanes(together);
                vec v[16];
                UNROLLED
                for (int j = 0; j < (int) LANES; j++)
                    if (j < together) v[j] = *(const vec *) (c + place[i + j] + p) + bias[i + j];
                    else v[j] = ZEROS;
                transpose(v);
                real *to = y + p * step + i;
                UNROLLED
                for (int j = 0; j < (int) LANES; j++, to += step)
                    if (j < positions) store_part(to, mask, v[j]);
            }
        }
        return 1;
    #else
        return 0;
    #endif
    }

    /* y[p*phases + i] = c[place[i] + p] + bias[i], likewise; c is scratch memory, of which more may be read. */
    static int zip_lines(
        Py_ssize_t phases, const real *c, const Py_ssize_t *place, Py_ssize_t n, const real *bias, real *y) {
    #if SHUFFLES
      #define ZIP(N) case N: zip_lines_##N(c, place, n, bias, y); return 1;
        switch (phases) { EACH(ZIP) }
    #endif
        return 0;
    }
    """
    void deal(int n, vec* v) noexcept nogil
    void zip(int n, vec* v) noexcept nogil
    ctypedef struct Margins:
        Py_ssize_t low, high, size, step, pitch
    ctypedef struct Rows:
        const real* line
        real* to
        const Py_ssize_t* channel
        Py_ssize_t channels, channel_pitch, low, high, n, plane_pitch, ahead
        Margins slice, row
    bint deal_rows(Py_ssize_t phases, Py_ssize_t step, const Rows* rows) noexcept nogil
    bint deal_line(Py_ssize_t phases, const real* line, Py_ssize_t n, real* to, Py_ssize_t pitch) noexcept nogil
    bint zip_lines(
        Py_ssize_t phases, const real* c, const Py_ssize_t* place, Py_ssize_t n, const real* bias, real* y,
    ) noexcept nogil
    const bint SHUFFLES
    void deal_channels(Py_ssize_t step, Py_ssize_t low, Py_ssize_t high, const Rows* rows) noexcept nogil
    bint zip_rows(
        Py_ssize_t rows, const real* c, const Py_ssize_t* place, Py_ssize_t n, const real* bias, real* y,
        Py_ssize_t step,
    ) noexcept nogil

cdef enum:
    TRANSPOSED = 5  # rows or channels that go by vectors of positions together, not each by itself

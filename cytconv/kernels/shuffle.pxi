# Phases of a line taken apart, and put together again; the shuffles of `cytconv._phases` on whole vectors.
#
#     deal    a A b B c C d D   -->   a b c d          zip is its inverse.  By 4, 8 and 16 it is done by halves, the
#                                     A B C D          even ones and the odd ones, each of which is dealt in turn.

cdef extern from *:
    """
    #if VECTORS && !defined(__clang__)
      #define SHUFFLES 1
      typedef __typeof__(__builtin_choose_expr(sizeof(real) == 4, (int) 0, (long long) 0)) lane_number;
      typedef lane_number lane_numbers __attribute__((vector_size(VECTOR_BYTES)));
      #define INLINE static inline __attribute__((always_inline)) void

      /* Numbers first, first + step, ... of those in a and b. */
      #define PICK(a, b, first, step) ({ \\
          lane_numbers which; \\
          for (int j = 0; j < (int) LANES; j++) which[j] = (first) + j * (step); \\
          __builtin_shuffle(a, b, which); })

      INLINE deal_2(vec *v) {
          vec even = PICK(v[0], v[1], 0, 2), odd = PICK(v[0], v[1], 1, 2);
          v[0] = even, v[1] = odd;
      }
      INLINE zip_2(vec *v) {
          lane_numbers low, high;
          for (int j = 0; j < (int) LANES; j++) {
              low[j] = j / 2 + j % 2 * LANES;
              high[j] = low[j] + LANES / 2;
          }
          vec first = __builtin_shuffle(v[0], v[1], low), last = __builtin_shuffle(v[0], v[1], high);
          v[0] = first, v[1] = last;
      }

      /* By three: what comes from the first two vectors, then what comes from the third.  `number` is a literal, as in
         a loop GCC would compute the lanes at run time. */
      static inline __attribute__((always_inline)) vec dealt_3(const vec *v, int number) {
          lane_numbers two, third;
          for (int j = 0; j < (int) LANES; j++) {
              int from = number + 3 * j;
              two[j] = from < 2 * LANES ? from : 0;
              third[j] = from < 2 * LANES ? j : from - LANES;
          }
          return __builtin_shuffle(__builtin_shuffle(v[0], v[1], two), v[2], third);
      }
      static inline __attribute__((always_inline)) vec zipped_3(const vec *v, int number) {
          lane_numbers two, third;
          for (int j = 0; j < (int) LANES; j++) {
              int at = number * LANES + j;
              two[j] = at % 3 < 2 ? at / 3 + at % 3 * LANES : 0;
              third[j] = at % 3 < 2 ? j : at / 3 + LANES;
          }
          return __builtin_shuffle(__builtin_shuffle(v[0], v[1], two), v[2], third);
      }
      INLINE deal_3(vec *v) {
          vec first = dealt_3(v, 0), second = dealt_3(v, 1), third = dealt_3(v, 2);
          v[0] = first, v[1] = second, v[2] = third;
      }
      INLINE zip_3(vec *v) {
          vec first = zipped_3(v, 0), second = zipped_3(v, 1), third = zipped_3(v, 2);
          v[0] = first, v[1] = second, v[2] = third;
      }

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

      /* What there is of the last vectors; c is scratch memory, of which more may be read. */
      #define LINES(N) \\
          static Py_ssize_t deal_lines_##N(const real *line, Py_ssize_t n, real *to, Py_ssize_t pitch) { \\
              Py_ssize_t p = 0; \\
              for (; p + LANES <= n; p += LANES, line += N * LANES) { \\
                  vec v[N]; \\
                  for (int i = 0; i < N; i++) v[i] = ((const vec *) line)[i]; \\
                  deal_##N(v); \\
                  for (int i = 0; i < N; i++) *(vec *) (to + i * pitch + p) = v[i]; \\
              } \\
              if (p < n) { \\
                  vec v[N]; \\
                  for (int i = 0; i < N; i++) \\
                      v[i] = load_part(line + i * LANES, first_lanes((n - p) * N - i * LANES)); \\
                  deal_##N(v); \\
                  for (int i = 0; i < N; i++) store_part(to + i * pitch + p, first_lanes(n - p), v[i]); \\
              } \\
              return n; \\
          } \\
          static Py_ssize_t zip_lines_##N( \\
              const real *c, Py_ssize_t pitch, Py_ssize_t n, const real *bias, real *y) { \\
              Py_ssize_t p = 0; \\
              for (; p + LANES <= n; p += LANES, y += N * LANES) { \\
                  vec v[N]; \\
                  for (int i = 0; i < N; i++) v[i] = *(const vec *) (c + i * pitch + p) + bias[i]; \\
                  zip_##N(v); \\
                  for (int i = 0; i < N; i++) ((vec *) y)[i] = v[i]; \\
              } \\
              if (p < n) { \\
                  vec v[N]; \\
                  for (int i = 0; i < N; i++) v[i] = *(const vec *) (c + i * pitch + p) + bias[i]; \\
                  zip_##N(v); \\
                  for (int i = 0; i < N; i++) \\
                      store_part(y + i * LANES, first_lanes((n - p) * N - i * LANES), v[i]); \\
              } \\
              return n; \\
          }
      LINES(2)
      LINES(3)
      LINES(4)
      LINES(6)
      LINES(8)
      LINES(16)
    #else
      #define SHUFFLES 0
    #endif

    /* v[i] = numbers i, i + n, i + 2n, ... of the n vectors v, and back; n is a literal. */
    #define SHUFFLE(NAME, FROM, TO) \\
        static INLINE_VECTORS void NAME(int n, vec *v) { \\
            BY_VECTORS(NAME) \\
            real line[n * LANES]; \\
            memcpy(line, v, sizeof line); \\
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

    /* to[i*pitch + p] = line[p*phases + i] for p < n, if there is a way for so many phases; tells n, or 0. */
    static inline Py_ssize_t deal_lines(
        Py_ssize_t phases, const real *line, Py_ssize_t n, real *to, Py_ssize_t pitch) {
    #if SHUFFLES
        switch (phases) {
        case 2: return deal_lines_2(line, n, to, pitch);
        case 3: return deal_lines_3(line, n, to, pitch);
        case 4: return deal_lines_4(line, n, to, pitch);
        case 6: return deal_lines_6(line, n, to, pitch);
        case 8: return deal_lines_8(line, n, to, pitch);
        case 16: return deal_lines_16(line, n, to, pitch);
        }
    #endif
        return 0;
    }

    /* y[p*phases + i] = c[i*pitch + p] + bias[i], likewise. */
    static inline Py_ssize_t zip_lines(
        Py_ssize_t phases, const real *c, Py_ssize_t pitch, Py_ssize_t n, const real *bias, real *y) {
    #if SHUFFLES
        switch (phases) {
        case 2: return zip_lines_2(c, pitch, n, bias, y);
        case 3: return zip_lines_3(c, pitch, n, bias, y);
        case 4: return zip_lines_4(c, pitch, n, bias, y);
        case 6: return zip_lines_6(c, pitch, n, bias, y);
        case 8: return zip_lines_8(c, pitch, n, bias, y);
        case 16: return zip_lines_16(c, pitch, n, bias, y);
        }
    #endif
        return 0;
    }
    """
    void deal(int n, vec* v) noexcept nogil
    void zip(int n, vec* v) noexcept nogil
    Py_ssize_t deal_lines(
        Py_ssize_t phases, const real* line, Py_ssize_t n, real* to, Py_ssize_t pitch,
    ) noexcept nogil
    Py_ssize_t zip_lines(
        Py_ssize_t phases, const real* c, Py_ssize_t pitch, Py_ssize_t n, const real* bias, real* y,
    ) noexcept nogil

# Vectors of which some lanes exist: at the ends of lines.

cdef extern from *:
    """
    #if VECTORS && defined(__AVX__)
      #include <immintrin.h>
    #endif

    /* A `Mask` tells which lanes of a vector exist, as the CPU is told: a bit for each, or all bits of the lane. */
    #if defined(__AVX2__) && !defined(__AVX512F__) && VECTORS
      typedef __m256i Mask;
      static inline Mask mask_below(Py_ssize_t high) {
          static const long long ones[8] = {-1, -1, -1, -1, 0, 0, 0, 0};
          return _mm256_loadu_si256((const __m256i *) ((const char *) (ones + 4) - high * sizeof(real)));
      }
      static inline Mask mask_of(Py_ssize_t low, Py_ssize_t high) {
          return _mm256_andnot_si256(mask_below(low), mask_below(high));
      }
    #else
      typedef unsigned Mask;
      static inline Mask mask_below(Py_ssize_t high) { return (1u << high) - 1; }
      static inline Mask mask_of(Py_ssize_t low, Py_ssize_t high) { return mask_below(high) - mask_below(low); }
    #endif

    /* Of the vector that begins there, the lanes that exist, else zeros; and to memory, the others left alone. */
    #if defined(__AVX512F__) && VECTORS
      /* Most vectors of a step in part are whole, and faster without a mask. */
      #define ALL ((1u << LANES) - 1)
      static inline vec load_part(const real *from, Mask mask) {
          if (mask == ALL) return *(const vec *) from;
          return sizeof(real) == 4 ? (vec) _mm512_maskz_loadu_ps((__mmask16) mask, from)
                                   : (vec) _mm512_maskz_loadu_pd((__mmask8) mask, from);
      }
      static inline void store_part(real *to, Mask mask, vec v) {
          if (mask == ALL) *(vec *) to = v;
          else if (sizeof(real) == 4) _mm512_mask_storeu_ps(to, (__mmask16) mask, (__m512) v);
          else _mm512_mask_storeu_pd(to, (__mmask8) mask, (__m512d) v);
      }
    #elif defined(__AVX2__) && VECTORS
      static inline vec load_part(const real *from, Mask mask) {
          return sizeof(real) == 4 ? (vec) _mm256_maskload_ps((const float *) from, mask)
                                   : (vec) _mm256_maskload_pd((const double *) from, mask);
      }
      static inline void store_part(real *to, Mask mask, vec v) {
          if (_mm256_movemask_epi8(mask) == -1) *(vec *) to = v;  /* some CPUs store by masks far more slowly */
          else if (sizeof(real) == 4) _mm256_maskstore_ps((float *) to, mask, (__m256) v);
          else _mm256_maskstore_pd((double *) to, mask, (__m256d) v);
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

    /* The first n lanes; none if n < 1, all if there are no more. */
    static inline Mask first_lanes(Py_ssize_t n) { return mask_below(n < 0 ? 0 : n < LANES ? n : LANES); }

    /* Of the vector at number `at` of a line, the lanes that have numbers from `low` to `high`. */
    static inline Mask mask_within(Py_ssize_t at, Py_ssize_t low, Py_ssize_t high) {
        low = low < at ? 0 : low - at < LANES ? low - at : LANES;
        high = high - at < low ? low : high - at < LANES ? high - at : LANES;
        return mask_of(low, high);
    }
    """
    ctypedef unsigned int Mask  # or a vector
    Mask mask_within(Py_ssize_t at, Py_ssize_t low, Py_ssize_t high) noexcept nogil
    vec load_part(const real* source, Mask mask) noexcept nogil
    void store_part(real* to, Mask mask, vec v) noexcept nogil

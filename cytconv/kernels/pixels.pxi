# Pixels, several numbers at each position of a line, as `cytconv._pixels` lays them out in vectors.
#
# A vector holds whole pixels that are small.  Then streams are taken apart and put together like those of numbers
# (shuffle.pxi), but for what is in a lane.  Of large pixels it holds a part of one, so that there is but one stream.
#
#     small, S = 2    R G B r g b R G B r g b .     deal     R G B R G B ...       large    [ R G B ... ] [ r g b ... ]
#                     R G B r g b R G B r g b .     --->     r g b r g b ...

cdef extern from *:
    """
    typedef struct {
        Py_ssize_t size;  /* of each */
        Py_ssize_t lanes;  /* of a vector that hold numbers, */
        Mask stored;  /* and which these are */
        Py_ssize_t source_step, result_step;  /* from one vector to the next */
        int small;  /* whether a vector holds several */
    #if SHUFFLES  /* which lanes of which vectors are taken */
        lane_numbers even, odd, low, high;  /* by two, to deal and to zip; */
        lane_numbers dealt_3[3][2], zipped_3[3][2];  /* by three, from the first two, then from those and the third */
    #endif
    } Pixels;

    /* Of n streams whose pixels take turns: where number `lane` of one of them comes from, and where what comes next to
       each other in a vector is to be found in the streams. */
    static inline Py_ssize_t comes_at(const Pixels *p, int n, Py_ssize_t f, Py_ssize_t lane) {
        Py_ssize_t at = (lane / p->size * n + f) * p->size + lane % p->size;
        return at / p->lanes * LANES + at % p->lanes;
    }
    static inline Py_ssize_t goes_to(const Pixels *p, int n, Py_ssize_t vector, Py_ssize_t lane) {
        Py_ssize_t at = vector * p->lanes + lane, pixel = at / p->size;
        return pixel % n * LANES + pixel / n * p->size + at % p->size;
    }

    static void note_pixels(Pixels *p) {
    #if SHUFFLES
        for (Py_ssize_t j = 0; j < LANES; j++) {
            int used = j < p->lanes;
            p->even[j] = used ? comes_at(p, 2, 0, j) : 0;
            p->odd[j] = used ? comes_at(p, 2, 1, j) : 0;
            p->low[j] = used ? goes_to(p, 2, 0, j) : 0;
            p->high[j] = used ? goes_to(p, 2, 1, j) : 0;
            for (int i = 0; i < 3; i++) {
                Py_ssize_t from = used ? comes_at(p, 3, i, j) : 0, to = used ? goes_to(p, 3, i, j) : 0;
                p->dealt_3[i][0][j] = from < 2 * LANES ? from : 0;
                p->dealt_3[i][1][j] = from < 2 * LANES ? j : from - LANES;
                p->zipped_3[i][0][j] = to < 2 * LANES ? to : 0;
                p->zipped_3[i][1][j] = to < 2 * LANES ? j : to - LANES;
            }
        }
    #else
        (void) p;
    #endif
    }

    /* Streams of pixels that take turns, from n vectors each to a vector of its own and back; n is a literal. */
    #if SHUFFLES
      #define SHUFFLE_PIXELS(NAME, FIRST, LAST, BY_THREE) \\
          INLINE NAME##_2(const Pixels *p, vec *v) { \\
              vec first = pick(v[0], v[1], p->FIRST), last = pick(v[0], v[1], p->LAST); \\
              v[0] = first, v[1] = last; \\
          } \\
          INLINE NAME##_3(const Pixels *p, vec *v) { \\
              vec to[3]; \\
              for (int i = 0; i < 3; i++) { \\
                  vec two = pick(v[0], v[1], p->BY_THREE[i][0]); \\
                  to[i] = pick(two, v[2], p->BY_THREE[i][1]); \\
              } \\
              for (int i = 0; i < 3; i++) v[i] = to[i]; \\
          }
      SHUFFLE_PIXELS(deal_pixels, even, odd, dealt_3)
      SHUFFLE_PIXELS(zip_pixels, low, high, zipped_3)
      #define PIXELS_BY_HALVES(N, HALF) \\
          INLINE deal_pixels_##N(const Pixels *p, vec *v) { \\
              vec even[HALF], odd[HALF]; \\
              for (int i = 0; i < HALF; i++) { \\
                  deal_pixels_2(p, v + 2 * i); \\
                  even[i] = v[2 * i], odd[i] = v[2 * i + 1]; \\
              } \\
              deal_pixels_##HALF(p, even); \\
              deal_pixels_##HALF(p, odd); \\
              for (int i = 0; i < HALF; i++) v[2 * i] = even[i], v[2 * i + 1] = odd[i]; \\
          } \\
          INLINE zip_pixels_##N(const Pixels *p, vec *v) { \\
              vec even[HALF], odd[HALF]; \\
              for (int i = 0; i < HALF; i++) even[i] = v[2 * i], odd[i] = v[2 * i + 1]; \\
              zip_pixels_##HALF(p, even); \\
              zip_pixels_##HALF(p, odd); \\
              for (int i = 0; i < HALF; i++) { \\
                  v[2 * i] = even[i], v[2 * i + 1] = odd[i]; \\
                  zip_pixels_2(p, v + 2 * i); \\
              } \\
          }
      PIXELS_BY_HALVES(4, 2)
      PIXELS_BY_HALVES(8, 4)
      #define BY_STREAMS(NAME) \\
          INLINE NAME(int n, const Pixels *p, vec *v) { \\
              switch (n) { \\
              case 2: NAME##_2(p, v); return; \\
              case 3: NAME##_3(p, v); return; \\
              case 4: NAME##_4(p, v); return; \\
              case 8: NAME##_8(p, v); return; \\
              } \\
          }
      BY_STREAMS(deal_pixels)
      BY_STREAMS(zip_pixels)
    #else
      #define MOVE_PIXELS(NAME, FROM) \\
          static void NAME(int n, const Pixels *p, vec *v) { \\
              real line[8 * LANES]; \\
              memcpy(line, v, n * sizeof(vec)); \\
              for (int i = 0; i < n; i++) \\
                  for (Py_ssize_t j = 0; j < p->lanes; j++) ((real *) v)[i * LANES + j] = line[FROM(p, n, i, j)]; \\
          }
      MOVE_PIXELS(deal_pixels, comes_at)
      MOVE_PIXELS(zip_pixels, goes_to)
    #endif
    """
    ctypedef struct Pixels:
        Py_ssize_t source_step, result_step, size, lanes
        Mask stored
        bint small
    void note_pixels(Pixels* p) noexcept nogil
    void deal_pixels(int n, const Pixels* p, vec* v) noexcept nogil
    void zip_pixels(int n, const Pixels* p, vec* v) noexcept nogil

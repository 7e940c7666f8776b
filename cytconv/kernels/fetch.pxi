# What is packed next is fetched while the tiles multiply, a few lines before each of their calls: to pack is to wait
# for memory, and to multiply needs none.  `cytconv._machine` says on which CPUs.

cdef extern from *:
    """
    #define PER_LINE ((Py_ssize_t) (64 / sizeof(real))) /* numbers in a cache line */
    #define PAGE ((Py_ssize_t) (4096 / sizeof(real)))  /* as far as CPUs look by themselves */

    /* To L2: of L1 there is none to spare, and fewer lines can be on their way there. */
    #ifdef __GNUC__
      #define FETCH_FAR(p) __builtin_prefetch(p, 0, 2)
    #else
      #define FETCH_FAR(p)
    #endif

    /* Have the cache lines of line[low*step], ..., line[(high - 1)*step] fetched. */
    static inline void fetch_line(const real *line, Py_ssize_t step, Py_ssize_t low, Py_ssize_t high) {
        Py_ssize_t skip = PER_LINE;
        if (step < 0) step = -step;
        if (step != 1) skip = step == 0 || step >= PER_LINE ? 1 : PER_LINE / step;
        for (Py_ssize_t j = low; j < high; j += skip) FETCH_FAR(line + j * step);
    }

    typedef struct {
        const real *source;  /* the next line, but for */
        const Py_ssize_t *channel;  /* where its channel begins in the array, */
        const Py_ssize_t *phase;  /* and its phase, one that is the first in a line */
        const Py_ssize_t *step;  /* from one position to the next */
        Py_ssize_t n[MAX_DIMS], at[MAX_DIMS];  /* positions, and those of the next line */
        Py_ssize_t channels;  /* that lie in one cache line */
        Py_ssize_t dims, phases, phases_left;  /* of the channel */
        Py_ssize_t lines;  /* that are left */
        Py_ssize_t each;  /* how many at a time */
    } Ahead;
    """
    const Py_ssize_t PER_LINE, PAGE
    void FETCH_FAR(const real* p) noexcept nogil
    void fetch_line(const real* line, Py_ssize_t step, Py_ssize_t low, Py_ssize_t high) noexcept nogil
    ctypedef struct Ahead:
        const real* source
        const Py_ssize_t* channel
        const Py_ssize_t* phase
        const Py_ssize_t* step
        Py_ssize_t* n
        Py_ssize_t* at
        Py_ssize_t channels, dims, phases, phases_left, lines, each


cdef void fetch_ahead(Ahead* a) noexcept nogil:
    cdef Py_ssize_t d, last = a.dims - 1, number = min(a.each, a.lines)
    a.lines -= number
    for _ in range(number):
        fetch_line(a.source + a.phase[0] + a.channel[0], a.step[last], 0, a.n[last])
        for d in range(last - 1, -1, -1):
            a.at[d] += 1
            a.source += a.step[d]
            if a.at[d] < a.n[d]:
                break
            a.source -= a.n[d] * a.step[d]
            a.at[d] = 0
        else:
            a.phase += 1
            a.phases_left -= 1
            if a.phases_left == 0:
                a.phase -= a.phases
                a.phases_left = a.phases
                a.channel += a.channels

# What is packed next is fetched while the tiles multiply, a few lines before each of their calls: to pack is to wait
# for memory, and to multiply needs none.  `cytconv._machine` says on which CPUs.

cdef extern from *:
    """
    #define PAGE ((Py_ssize_t) (4096 / sizeof(real)))  /* as far as CPUs look by themselves */

    /* Have the cache lines of line[low*step], ..., line[(high - 1)*step] fetched. */
    static inline void fetch_line(const real *line, Py_ssize_t step, Py_ssize_t low, Py_ssize_t high) {
    #ifdef __GNUC__
        Py_ssize_t per_line = 64 / sizeof(real), skip = per_line;
        if (step != 1) skip = step == 0 || step >= per_line || -step >= per_line ? 1 : per_line / (step < 0 ? -step : step);
        /* To L2: of L1 there is none to spare, and fewer lines can be on their way there. */
        for (Py_ssize_t j = low; j < high; j += skip) __builtin_prefetch(line + j * step, 0, 2);
    #endif
    }

    typedef struct {
        const real *source;  /* the first line, but for */
        const Py_ssize_t *channel;  /* where each channel begins in the array, */
        const Py_ssize_t *phase;  /* and each phase that is the first in a line */
        const Py_ssize_t *step;  /* from one position to the next */
        Py_ssize_t n[MAX_DIMS];
        Py_ssize_t dims, phases;
        Py_ssize_t line, lines;  /* the next one, and how many there are */
        Py_ssize_t each;  /* how many at a time */
    } Ahead;
    """
    const Py_ssize_t PAGE
    void fetch_line(const real* line, Py_ssize_t step, Py_ssize_t low, Py_ssize_t high) noexcept nogil
    ctypedef struct Ahead:
        const real* source
        const Py_ssize_t* channel
        const Py_ssize_t* phase
        const Py_ssize_t* step
        Py_ssize_t* n
        Py_ssize_t dims, phases, line, lines, each


cdef void fetch_ahead(Ahead* a) noexcept nogil:
    cdef Py_ssize_t i, d, rest, last = a.dims - 1
    cdef const real* line
    for i in range(a.line, min(a.line + a.each, a.lines)):
        line, rest = a.source, i
        for d in range(last - 1, -1, -1):
            line += rest % a.n[d] * a.step[d]
            rest = rest // a.n[d]
        line += a.phase[rest % a.phases] + a.channel[rest // a.phases]
        fetch_line(line, a.step[last], 0, a.n[last])
    a.line += a.each

# Lines along the last axis that are read where they lie, and tasks that are made of them; `cytconv._lines` explains
# the plan.  What is done with the lines is in stencil.pxi and weight_lines.pxi.
#
# A *row* is a line of the result (of y, in the adjoint in the weights) for each position of the outer axes; it has to
# do with some lines of the source.  Those that lie outside of it are left out; at the ends of a line, vectors are
# loaded and stored in part: a mask tells which of their lanes exist.

cdef extern from *:
    """
    /* LITERALS: a function with literal arguments, which only become literals in a copy of it at each call.
       APART: a function for one such copy, as GCC would keep little in registers if all were in one. */
    #ifdef __GNUC__
      #define LITERALS static inline __attribute__((always_inline)) void
      #define APART static __attribute__((noinline)) void
    #else
      #define LITERALS static void
      #define APART static void
    #endif

    /* Streams of the source and of the result that can be done. */
    #define ALL_STREAMS(CASE) \\
        CASE(1, 1) CASE(1, 2) CASE(2, 1) CASE(1, 3) CASE(3, 1) CASE(1, 4) CASE(4, 1) CASE(2, 2) CASE(2, 4) CASE(4, 2) \\
        CASE(1, 8) CASE(8, 1)
    """


cdef class LineTables:
    """The tables that `cytconv._lines` makes for all readings, read only; strides and offsets count elements."""

    cdef Py_ssize_t dims, outer  # axes but for that of the lines, and how many positions they have
    cdef Py_ssize_t rows, source_group, source_size, result_group
    cdef Py_ssize_t result_begin, result_end  # of a line of the result, from where its first position is
    cdef Py_ssize_t outer_each, steps_each, stretches  # positions and steps of a task; so many make up all steps
    cdef int streams, result_streams, vectors  # of positions in a step
    cdef const Py_ssize_t[::1] extent, source_step, result_step, reads
    cdef const Py_ssize_t[::1] row_place, row_range, row_line, line_place, line_range, line_ahead
    cdef Py_ssize_t steps, step_numbers  # of a line; of the result, that a step has
    cdef bint of_pixels
    cdef Memory pixel_memory
    cdef Pixels* pixels  # or what else vectors hold
    cdef const Py_ssize_t[::1] columns  # where the vectors of a pixel begin
    cdef Py_ssize_t head, tail  # those before `head` and from `tail` on reach beyond the ends of the line, and have
    cdef Py_ssize_t step_masks  # so many masks each
    cdef Py_ssize_t lines_at_once  # 1, or more if they are one step long
    cdef Memory mask_memory
    cdef Mask* masks
    cdef Py_ssize_t line_weights  # how many a line meets
    cdef readonly Py_ssize_t group_tasks  # how many a group of channels has

    def __init__(self, **tables):
        self.streams, self.result_streams = tables["streams"], tables["result_streams"]
        self.extent, self.source_step, self.result_step = tables["extent"], tables["source_step"], tables["result_step"]
        self.source_group, self.source_size = tables["source_group"], tables["source_size"]
        self.result_group = tables["result_group"]
        self.result_begin, self.result_end = tables["result_begin"], tables["result_end"]
        self.outer_each, self.steps_each, self.reads = tables["outer_each"], tables["steps_each"], tables["reads"]
        self.row_place, self.row_range, self.row_line = tables["row_place"], tables["row_range"], tables["row_line"]
        self.line_place, self.line_range = tables["line_place"], tables["line_range"]
        self.line_ahead = tables["line_ahead"]
        self.dims, self.rows = self.extent.shape[0], self.row_place.shape[0]
        self.outer = 1
        for n in self.extent:
            self.outer *= n
        self.line_weights = self.reads.shape[0] * self.streams * self.result_streams
        self.steps, self.head, self.tail = tables["steps"], tables["head"], tables["tail"]
        self.lines_at_once = tables["lines_at_once"]
        self.stretches = ceil_div(self.steps, self.steps_each)
        self.group_tasks = self.stretches * ceil_div(self.outer, self.outer_each)
        self.vectors = tables["vectors"]
        self.of_pixels, self.columns = tables["pixel_size"] > 0, tables["columns"]
        self.pixel_memory = Memory(sizeof(Pixels) // sizeof(real))
        self.pixels = <Pixels*> self.pixel_memory.first
        self.pixels.size, self.pixels.lanes = tables["pixel_size"], tables["lanes_stored"]
        self.pixels.small = 0 < self.pixels.size < self.pixels.lanes
        self.pixels.source_step, self.pixels.result_step = tables["source_width"], tables["result_width"]
        self.pixels.stored = mask_within(0, 0, self.pixels.lanes)
        if self.pixels.small:
            note_pixels(self.pixels)
        self.step_numbers = self.vectors * self.result_streams * self.pixels.result_step
        self.note_masks()

    cdef void note_masks(self):
        """For the steps at the ends of a line: a mask for each vector of each read, and for each of the result.

        Lines that are done at once have some each.
        """
        cdef Py_ssize_t step, t, i, at, k = 0
        cdef Py_ssize_t loads = self.vectors * self.streams, stores = self.vectors * self.result_streams
        self.step_masks = self.reads.shape[0] * loads + stores
        part = [*range(self.head), *range(self.tail, self.steps)] * self.lines_at_once
        self.mask_memory = Memory(len(part) * self.step_masks * sizeof(Mask) // sizeof(real) + 1)
        self.masks = <Mask*> self.mask_memory.first
        for step in part:
            for t in range(self.reads.shape[0]):
                for i in range(loads):
                    at = self.reads[t] + (step * loads + i) * self.pixels.source_step
                    self.masks[k] = mask_within(at, 0, self.source_size)
                    k += 1
            for i in range(stores):
                at = (step * stores + i) * self.pixels.result_step
                self.masks[k] = mask_within(at, self.result_begin, min(self.result_end, at + self.pixels.lanes))
                k += 1

    @final
    cdef inline Py_ssize_t alike(self, Py_ssize_t step, Py_ssize_t end) noexcept nogil:
        """Where the steps end that are like this one, of whole vectors or in part."""
        if self.head <= step < self.tail:
            return min(self.tail, end)
        return min(self.head, end) if step < self.head else end

    @final
    cdef inline const Mask* masks_of(self, Py_ssize_t step) noexcept nogil:
        """The masks of a step and those after it; NULL if its vectors are whole."""
        if self.head <= step < self.tail:
            return NULL
        return &self.masks[(step if step < self.head else step - self.tail + self.head) * self.step_masks]

    @final
    cdef Py_ssize_t begin(self, Py_ssize_t t, Py_ssize_t* e) noexcept nogil:
        """Where task `t` of a group begins on the outer axes; returns how many positions of these it has."""
        cdef Py_ssize_t d, at = t // self.stretches * self.outer_each, rest = at
        for d in range(self.dims - 1, -1, -1):
            e[d] = rest % self.extent[d]
            rest = rest // self.extent[d]
        return min(self.outer_each, self.outer - at)

    @final
    cdef inline Py_ssize_t offset(self, const Py_ssize_t* steps, const Py_ssize_t* e) noexcept nogil:
        """Of this position of the outer axes, in an array that has such steps."""
        cdef Py_ssize_t d, at = 0
        for d in range(self.dims):
            at += e[d] * steps[d]
        return at

    @final
    cdef inline bint exists(self, const Py_ssize_t* within, const Py_ssize_t* e) noexcept nogil:
        """Whether there is a line at this position of the outer axes."""
        cdef Py_ssize_t d
        for d in range(self.dims):
            if not within[2 * d] <= e[d] < within[2 * d + 1]:
                return False
        return True


cdef inline Py_ssize_t ceil_div(Py_ssize_t n, Py_ssize_t each) noexcept nogil:
    return (n + each - 1) // each

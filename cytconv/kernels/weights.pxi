# The adjoint in the weights: the same products, summed over positions.
#
#     w[c, d, k]  =  sum over i of  x[c, i] * y[d, i*stride + k*dilation - low]
#
#     x  [ i | channels c ]     both sides are packed with their channels innermost, in panels as wide as the tile:
#     y  [ i | channels d ]     `tile` then sums over the positions i.  A tap shifts where the positions begin in y.
#
# Each tap meets exactly the positions that its windows hold, as segments along the last axis: padding is never
# multiplied.  A task owns one group of panels on either side and one share of the positions; the shares are few, their
# number depends on the geometry alone, and they are added up in order.

cdef class Side:
    """One of the two arrays: how it lies in memory, and how a box of it is packed in panels of `width` channels."""

    cdef Py_ssize_t width, channels, panels, group, plane, phases, dims, size
    cdef const Py_ssize_t[::1] channel, step, start, valid, padded, pitch

    def __init__(self, **tables):
        self.width, self.channels = tables["width"], tables["channel"].shape[0]
        self.panels = tables["panels"]  # in one task
        self.group = tables["group"]
        self.channel, self.step = tables["channel"], tables["step"]
        self.start, self.valid = tables["start"], tables["valid"]
        self.padded, self.pitch = tables["padded"], tables["pitch"]
        self.plane = tables["plane"]  # from one panel and phase to the next
        self.phases = self.start.shape[0]
        self.dims = self.step.shape[0]
        self.size = self.panels * self.phases * self.plane

    @final
    cdef void pack(
        self, const real* source, Py_ssize_t first, Py_ssize_t panels, const Py_ssize_t* at, const Py_ssize_t* size,
        const Py_ssize_t* box, real* packed,
    ) noexcept nogil:
        """The box at `at` of `panels` panels from `first` on: ``packed[panel, phase, position, channel]``."""
        cdef Py_ssize_t last = self.dims - 1
        cdef Py_ssize_t phase, panel, lane, c, d, j, low, high, step = self.step[last], lines = 1
        cdef Py_ssize_t e[MAX_DIMS]
        cdef Py_ssize_t n[MAX_DIMS]
        cdef const Py_ssize_t* valid
        cdef const real* line
        cdef real* to
        cdef bint outside
        for d in range(self.dims):
            n[d] = size[d] + self.padded[d] - box[d]
            lines *= n[d] if d < last else 1
        for phase in range(self.phases):
            valid = &self.valid[phase * self.dims * 2]
            low = max(valid[2 * last] - at[last], 0)
            high = min(valid[2 * last + 1] - at[last], n[last])
            for panel in range(panels):
                for d in range(self.dims):
                    e[d] = 0
                for _ in range(lines):
                    line = source + self.start[phase] + at[last] * step
                    to = packed + (panel * self.phases + phase) * self.plane
                    outside = False
                    for d in range(last):
                        line += (at[d] + e[d]) * self.step[d]
                        to += e[d] * self.pitch[d] * self.width
                        if not valid[2 * d] <= at[d] + e[d] < valid[2 * d + 1]:
                            outside = True
                    if not outside:
                        for lane in range(self.width):
                            c = (first + panel) * self.width + lane
                            if c < self.channels:
                                for j in range(low, high):
                                    to[j * self.width + lane] = line[self.channel[c] + j * step]
                            else:
                                for j in range(low, high):
                                    to[j * self.width + lane] = 0
                    advance(last, n, e)


cdef class WeightAdjoint:
    """The tables of `cytconv._weights.weight_adjoint`, read only; strides and offsets count elements."""

    cdef int tile_rows
    cdef Side left, right
    cdef bint shift_left, wide
    cdef Py_ssize_t dims, taps, boxes, shares, left_groups, right_groups, left_panels, right_panels, lines
    cdef readonly Py_ssize_t scratch_size
    cdef const Py_ssize_t[::1] extent, box, counts, tap_offset, tap_range, places

    def __init__(self, Side left, Side right, **tables):
        self.left, self.right = left, right
        self.tile_rows = left.width
        self.wide = tables["wide"]
        self.shift_left = tables["shift_left"]  # which side the taps shift: that of y
        self.extent, self.box, self.counts = tables["extent"], tables["box"], tables["counts"]
        self.tap_offset, self.tap_range = tables["tap_offset"], tables["tap_range"]
        self.places = tables["places"]  # of the rows of the left panels of a task, among the tiles
        self.shares, self.boxes, self.lines = tables["shares"], tables["boxes"], tables["lines"]
        self.left_panels, self.right_panels = tables["left_panels"], tables["right_panels"]  # in all
        self.left_groups = (self.left_panels + left.panels - 1) // left.panels
        self.right_groups = (self.right_panels + right.panels - 1) // right.panels
        self.dims = self.extent.shape[0]
        self.taps = self.tap_offset.shape[0]
        self.scratch_size = left.size + right.size

    def run(
        self, const real[::1] left, Py_ssize_t left_start, const real[::1] right, Py_ssize_t right_start,
        real[::1] sums, real[::1] scratch, Py_ssize_t tasks, int workers,
    ):
        """Fill ``sums[share, group, tap, left panel, right panel]`` with tiles."""
        cdef Py_ssize_t t
        cdef const real* from_left = &left[0] + left_start
        cdef const real* from_right = &right[0] + right_start
        cdef real* to = &sums[0]
        cdef real* memory = &scratch[0]
        cdef Segment* segments = <Segment*> calloc(workers * self.lines, sizeof(Segment))
        if segments == NULL:
            raise MemoryError("no memory for the segments of the workers")
        with nogil:
            for t in prange(tasks, schedule="dynamic", num_threads=workers):
                self.task(
                    t, from_left, from_right, to, memory + thread_number() * self.scratch_size,
                    segments + thread_number() * self.lines,
                )
            free(segments)

    @final
    cdef void task(
        self, Py_ssize_t t, const real* left, const real* right, real* sums, real* scratch, Segment* segments,
    ) noexcept nogil:
        """The sums of one group of panels on either side over one share of the boxes."""
        cdef Py_ssize_t first_right = t % self.right_groups * self.right.panels
        cdef Py_ssize_t first_left = t // self.right_groups % self.left_groups * self.left.panels
        cdef Py_ssize_t outer = t // (self.right_groups * self.left_groups)  # group of channels and share
        cdef Py_ssize_t share = outer % self.shares
        cdef Py_ssize_t group = outer // self.shares
        cdef Py_ssize_t groups_of_tiles = self.taps * self.left_panels * self.right_panels
        cdef Py_ssize_t lefts = min(self.left.panels, self.left_panels - first_left)
        cdef Py_ssize_t rights = min(self.right.panels, self.right_panels - first_right)
        cdef Py_ssize_t box, begin = share * self.boxes // self.shares
        cdef Py_ssize_t d, rest, tap, count, j, tile_size = self.left.width * self.right.width
        cdef Py_ssize_t at[MAX_DIMS]
        cdef Py_ssize_t size[MAX_DIMS]
        cdef real* packed_right = scratch + self.left.size
        cdef real* tiles
        sums += outer * groups_of_tiles * tile_size
        for box in range(begin, (share + 1) * self.boxes // self.shares):
            rest = box
            for d in range(self.dims - 1, -1, -1):
                at[d] = rest % self.counts[d] * self.box[d]
                size[d] = min(self.box[d], self.extent[d] - at[d])
                rest = rest // self.counts[d]
            self.left.pack(left + group * self.left.group, first_left, lefts, at, size, &self.box[0], scratch)
            self.right.pack(
                right + group * self.right.group, first_right, rights, at, size, &self.box[0], packed_right,
            )
            for tap in range(self.taps):
                count = self.segments(tap, at, size, segments)
                tiles = sums + tap * self.left_panels * self.right_panels * tile_size
                for j in range(rights):
                    multiply_panels(
                        self.tile_rows, self.wide, lefts, self.left.phases * self.left.plane, scratch,
                        packed_right + j * self.right.phases * self.right.plane, segments, count, self.right.width,
                        tiles + (first_left * self.right_panels + first_right + j) * tile_size, &self.places[0],
                        box > begin,
                    )

    @final
    cdef Py_ssize_t segments(
        self, Py_ssize_t tap, const Py_ssize_t* at, const Py_ssize_t* size, Segment* segments,
    ) noexcept nogil:
        """Where in the packed box the tap finds its positions; lines that follow each other become one segment."""
        cdef Py_ssize_t last = self.dims - 1
        cdef const Py_ssize_t* valid = &self.tap_range[tap * self.dims * 2]
        cdef Py_ssize_t low[MAX_DIMS]
        cdef Py_ssize_t n[MAX_DIMS]
        cdef Py_ssize_t e[MAX_DIMS]
        cdef Py_ssize_t d, a, b, count = 0, lines = 1
        cdef Segment* s = segments - 1
        for d in range(self.dims):
            low[d] = max(valid[2 * d] - at[d], 0)
            n[d] = min(valid[2 * d + 1] - at[d], size[d]) - low[d]
            if n[d] <= 0:
                return 0
            e[d] = 0
            lines *= n[d] if d < last else 1
        for _ in range(lines):
            a = b = 0
            for d in range(self.dims):
                a += (low[d] + e[d]) * self.left.pitch[d]
                b += (low[d] + e[d]) * self.right.pitch[d]
            a = a * self.left.width + (self.tap_offset[tap] if self.shift_left else 0)
            b = b * self.right.width + (0 if self.shift_left else self.tap_offset[tap])
            if count and s.a + s.n * self.left.width == a and s.b + s.n * self.right.width == b:
                s.n += n[last]
            else:
                s += 1
                count += 1
                s.a, s.b, s.n = a, b, n[last]
            advance(last, n, e)
        return count

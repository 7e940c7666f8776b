# Forward and adjoint: pack a box of the source, multiply, store.  `cytconv._correlation` explains the plan.
#
#     source                  planes, flat and padded           rows of results            result
#     +-------------+         0 0 0 0 0 0                       c[row, position]           +------------------+
#     |   +-----+   |  pack   0 s s s s 0 0 s s s s 0 ...  tile   row 0  p p p p p ...     |     +------+     |
#     |   | box |   |  --->   0 t t t t 0 0 t t t t 0 ...  --->   row 1  p p p p p ... --> |     |      |     |
#     |   +-----+   |         one plane for each channel         (one for each channel     |     +------+     |
#     +-------------+         and phase of the source             and phase of result)     +------------------+
#
# Where rows are lines of the result, and there is no bias, tiles write there.
#
# Where multiplications are saved (`cytconv._winograd`), planes are sums of samples, and the rows of the tile are added
# up before they are stored.
#
# A task is one box of positions, one group of rows and one group of channels.  Each output element belongs to one
# task, which sums it in one order: results do not depend on the number of workers.
#
# Where there are many weights for few positions, and they are not packed yet, a task is all boxes of one group of rows.
# A worker keeps the planes of all boxes, and packs the weights of the rows, which then need not leave the cache.

cdef enum:
    PANELS = 8  # of weights that are packed side by side, if their rows are near each other,
    PRODUCTS = 16  # so many products at a time
    PAIRS = 64  # of channels whose taps are combined at a time
    COPY_BYTES = 48 * 1024  # of the planes, that stay in the nearest cache when they are copied


@final
cdef class Weights:
    """How weights are packed: the tables of `cytconv._layout.Layout`, for contiguous real arrays."""

    cdef int tile_rows
    cdef Py_ssize_t together, most  # panels that are packed side by side, so many products at a time
    cdef Py_ssize_t groups, pairs, taps  # of weights: of channels in a group, of the kernel
    cdef Py_ssize_t step  # from one group to the next, as they are packed
    cdef readonly Py_ssize_t size  # when packed
    cdef Sums sums  # or None
    cdef const Py_ssize_t[::1] panel_start, panel_weights, panel_products, products, places

    def __init__(
        self, Py_ssize_t groups, Py_ssize_t pairs, Py_ssize_t taps, Sums sums, int tile_rows, bint near,
        const Py_ssize_t[::1] panel_start, const Py_ssize_t[::1] panel_weights,
        const Py_ssize_t[::1] panel_products, const Py_ssize_t[::1] products, const Py_ssize_t[::1] places,
    ):
        """The products of panel p are those of ``products[panel_products[p]:]``, and so are their places in it.

        Where rows are `near` each other, the weights that a panel has of one product span less than a cache line.
        """
        self.groups, self.pairs, self.taps, self.tile_rows = groups, pairs, taps, tile_rows
        self.together, self.most = 1, products.shape[0]
        if near:
            self.together, self.most = PANELS, PRODUCTS
        self.sums = sums
        self.step = pairs * taps if sums is None else sums.lines * sums.pitch
        self.panel_start, self.panel_weights = panel_start, panel_weights
        self.panel_products, self.products, self.places = panel_products, products, places
        self.size = groups * panel_start[panel_start.shape[0] - 1]

    def packed(self, array, packed, int workers):
        """Fill the array `packed`; tells whether all weights are finite."""
        cdef Place w = Place(array), to = Place(packed, True)
        return self.pack(w.first, to.first, workers)

    cdef bint pack(self, const real* w, real* packed, int workers) except -1:
        """Bring the weights into panels; tells whether all of them are finite."""
        cdef Memory combined, lines
        cdef Py_ssize_t t, pieces = (self.pairs + PAIRS - 1) // PAIRS
        if self.sums is None or self.size == 0:
            return self.pack_panels(w, packed, workers)
        combined, lines = Memory(self.groups * self.step), Memory(workers * self.taps * PAIRS)
        for t in prange(self.groups * pieces, nogil=True, schedule="static", num_threads=workers):
            self.combine(
                t // pieces, t % pieces, w, lines.first + thread_number() * self.taps * PAIRS, combined.first,
            )
        return self.pack_panels(combined.first, packed, workers)

    cdef bint pack_panels(self, const real* w, real* packed, int workers) noexcept:
        cdef Py_ssize_t panels = self.panel_start.shape[0] - 1, blocks = (panels - 1) // self.together + 1
        cdef Py_ssize_t t, group, first, last, infinite = 0
        if self.size == 0:
            return True
        if workers == 1:
            for group in range(self.groups):
                infinite += not self.part(group, 0, panels, w, packed + group * self.panel_start[panels])
            return infinite == 0
        for t in prange(self.groups * blocks, nogil=True, schedule="static", num_threads=workers):
            group, first = t // blocks, t % blocks * self.together
            last = min(first + self.together, panels)
            infinite += not self.part(
                group, first, last, w, packed + group * self.panel_start[panels] + self.panel_start[first],
            )
        return infinite == 0

    cdef void combine(
        self, Py_ssize_t group, Py_ssize_t piece, const real* w, real* lines, real* combined,
    ) noexcept nogil:
        """Sums of taps, for some pairs of channels: each tap becomes a line with a number for each pair."""
        cdef Py_ssize_t first = piece * PAIRS, tap
        cdef Py_ssize_t n = min(self.pairs - first, PAIRS)
        for tap in range(self.taps):
            copy_line(w + (group * self.pairs + first) * self.taps + tap, self.taps, n, lines + tap * PAIRS)
        self.sums.add(lines, combined + group * self.step + first)

    cdef bint part(
        self, Py_ssize_t group, Py_ssize_t first, Py_ssize_t last, const real* w, real* packed,
    ) noexcept nogil:
        """Panels ``first, ..., last - 1`` of one group of channels; tells whether all of their weights are finite."""
        cdef Py_ssize_t end
        cdef bint finite = True
        packed -= self.panel_start[first]
        while first < last:
            end = min(first + self.together, last)
            finite &= self.side_by_side(first, end, w + group * self.step, packed)
            first = end
        return finite

    cdef bint side_by_side(self, Py_ssize_t begin, Py_ssize_t end, const real* w, real* packed) noexcept nogil:
        """Panels ``begin, ..., end - 1``; tells whether all of their weights are finite.

        Each takes its products in the order in which their weights lie in memory.  Those that share cache lines take
        turns, a few products each.
        """
        cdef Py_ssize_t p, first, n, k = 0
        cdef bint more = True
        while more:
            more = False
            for p in range(begin, end):
                n = (self.panel_start[p + 1] - self.panel_start[p]) // self.tile_rows - k
                if n > 0:
                    more = True
                    first = self.panel_products[p] + k
                    pack_panel(
                        self.tile_rows, w, &self.panel_weights[p * self.tile_rows], &self.products[first],
                        &self.places[first], min(n, self.most), packed + self.panel_start[p],
                    )
            k += self.most
        return all_finite(packed + self.panel_start[begin], self.panel_start[end] - self.panel_start[begin])


cdef struct Scratch:
    real* samples  # of some channels, whose sums the planes are
    real* source  # the planes of the box
    real* part  # of the weights, those of the rows of the task
    Segment* met  # segments of which a run reads more than zeros
    real* strip  # of the planes, as a tile reads it
    real* result  # the rows of the task
    real* stored  # the same, or sums of them
    real* bias
    real* line  # of the result, on its way past the caches
    bint direct  # whether tiles write to the result
    Py_ssize_t packed  # which box was packed last, or all boxes of which group of channels
    bint infinite  # whether some result was not finite
    Ahead ahead  # the box that is packed next


@final
cdef class Correlation:
    """The tables of `cytconv._correlation.correlation`, read only; strides and offsets count elements."""

    cdef Py_ssize_t dims, boxes, row_groups, classes
    cdef int tile_rows
    cdef bint check, past_caches
    cdef bint by_rows  # whether a task is all boxes
    cdef readonly Py_ssize_t scratch_size
    cdef Planes planes
    cdef Sums plane_sums, row_sums  # or None
    cdef Py_ssize_t flat, segment_step, sample_size, stored_size, channel_rows
    cdef bint zeros  # whether the last row of results is all zeros
    cdef Py_ssize_t run_pitch, row_pitch, result_group, results, most_stored
    cdef Py_ssize_t copied  # panels that are worth to copy the strip of the planes that they meet; 0 if none are
    cdef Py_ssize_t source_size, planes_size, part_size, met_size, strip_size, result_size, line_size
    cdef const Py_ssize_t[::1] extent, counts, unit, halo, pitch
    cdef const Py_ssize_t[::1] segments, strip_segment, class_strip
    cdef const Py_ssize_t[::1] segment_range  # positions along the axes before `flat` that meet samples; none if all do
    cdef const Py_ssize_t[::1] group_panel, panel_rows, panel_start
    cdef const Py_ssize_t[::1] panel_results  # where in the result those rows begin; none if tiles may not write there
    cdef const Py_ssize_t[::1] result_step, group_row, group_block, row_place, row_result, row_range, row_channel
    cdef const Py_ssize_t[::1] block_row, block_range, block_ragged, block_filled

    def __init__(self, Planes planes, Sums plane_sums, Sums row_sums, **tables):
        self.planes, self.plane_sums, self.row_sums = planes, plane_sums, row_sums
        self.sample_size, self.stored_size = tables["sample_size"], tables["stored_size"]
        self.channel_rows = tables["channel_rows"]
        self.tile_rows = tables["tile"]
        self.extent, self.counts, self.unit = tables["extent"], tables["counts"], tables["unit"]
        self.halo, self.pitch, self.flat = tables["halo"], tables["pitch"], tables["flat"]
        self.segments, self.segment_step = tables["segments"], tables["segment_step"]
        self.segment_range = tables["segment_range"]
        self.strip_segment, self.class_strip = tables["strip_segment"], tables["class_strip"]
        self.group_panel, self.panel_rows = tables["group_panel"], tables["panel_rows"]
        self.panel_results, self.panel_start = tables["panel_results"], tables["panel_start"]
        self.run_pitch, self.row_pitch, self.row_place = tables["run_pitch"], tables["row_pitch"], tables["row_place"]
        self.result_step, self.result_group = tables["result_step"], tables["result_group"]
        self.results, self.group_row = tables["results"], tables["group_row"]
        self.group_block, self.block_row = tables["group_block"], tables["block_row"]
        self.block_range, self.block_ragged = tables["block_range"], tables["block_ragged"]
        self.block_filled = tables["block_filled"]
        self.row_result, self.row_range = tables["row_result"], tables["row_range"]
        self.row_channel = tables["row_channel"]
        self.source_size, self.result_size = tables["source_size"], tables["result_size"]
        self.zeros = tables["zeros"]
        self.dims = self.extent.shape[0]
        self.classes = self.class_strip.shape[0] - 1
        self.row_groups = self.group_row.shape[0] - 1
        self.most_stored, self.copied = tables["most_stored"], tables["copied"]
        self.boxes = 1
        for count in self.counts:
            self.boxes *= count
        self.by_rows = tables["by_rows"]
        self.check = tables["check"]  # whether to look for results that are not finite
        # Lines of the result that are stored whole may go past the caches, or not all rows of a block reach their ends:
        # then by way of a line in scratch memory, in which what all rows have begins on a cache line.
        self.past_caches = STREAMS and tables["past_caches"]
        self.line_size = cache_lines(tables["line_size"]) + PER_LINE if tables["line_size"] else 0
        self.strip_size = cache_lines(self.longest_strip() * tile_width(self.tile_rows) * LANES)
        self.part_size = cache_lines(self.largest_part()) if self.by_rows else 0
        self.met_size = 0
        if self.segment_range.shape[0]:
            self.met_size = cache_lines(self.segments.shape[0] * (sizeof(Py_ssize_t) // sizeof(real)))
        # Elements of scratch for each worker, in the order of `Scratch`: samples that are summed, the packed box or all
        # of them, weights, segments, a strip, the results and sums of them, the bias of each row, a line.
        self.planes_size = self.source_size * (self.boxes if self.by_rows else 1)
        self.scratch_size = planes.together * self.sample_size + self.planes_size + self.part_size + self.met_size
        self.scratch_size += self.strip_size + self.result_size + self.stored_size + cache_lines(self.most_stored)
        self.scratch_size += self.line_size

    cdef Py_ssize_t longest_strip(self) noexcept:
        """Steps of the longest strip, 0 if none is copied: many panels are to meet it, and all of it to stay in L1."""
        cdef Py_ssize_t panels = 0, longest = 0, i, strip, n
        cdef bint fits
        for i in range(self.group_panel.shape[0] - 1):
            panels = max(panels, self.group_panel[i + 1] - self.group_panel[i])
        for strip in range(self.strip_segment.shape[0] - 1):
            n = 0
            for i in range(self.strip_segment[strip], self.strip_segment[strip + 1]):
                n += self.segments[3 * i + 2]
            longest = max(longest, n)
        fits = longest * tile_width(self.tile_rows) * sizeof(vec) <= COPY_BYTES
        return longest if 0 < self.copied <= panels and fits else 0

    cdef Py_ssize_t largest_part(self) noexcept:
        """Weights of a group of rows, at most."""
        cdef Py_ssize_t row_group, largest = 0
        for row_group in range(self.row_groups):
            largest = max(
                largest,
                self.panel_start[self.group_panel[(row_group + 1) * self.classes]]
                - self.panel_start[self.group_panel[row_group * self.classes]],
            )
        return largest

    def run(self, source, weights, bias, result, Py_ssize_t tasks, int workers):
        """Compute the whole result.  `weights` are packed, or the `Weights` and an array to pack now.

        `bias` has one entry for each channel, or is None.  Returns whether all weights are finite, and all results
        where that is checked: if not, the result is to be computed otherwise.
        """
        cdef Place from_ = Place(source), to = Place(result, True), b = Place(bias), w
        cdef Weights packing = None
        cdef Memory packed = None, memory = Memory(workers * self.scratch_size)
        cdef Memory states_memory = Memory(workers * (sizeof(Scratch) // sizeof(real) + 1))
        cdef Scratch* states = <Scratch*> states_memory.first
        cdef Py_ssize_t next = 0, chunk = self.chunk(tasks, workers)
        cdef bint infinite = False, direct
        cdef int worker
        cdef const real* panels
        if type(weights) is tuple:
            packing, array = weights
            w = Place(array)
            panels = w.first
            if not self.by_rows:
                packed = Memory(packing.size)
                if not packing.pack(w.first, packed.first, workers):
                    return False
                panels = packed.first
        elif self.by_rows:
            raise ValueError("tasks pack their weights: these must come unpacked")
        else:
            w = Place(weights)
            panels = w.first
        direct = self.panel_results.shape[0] > 0 and b.first == NULL
        direct &= not self.past_caches or <size_t> to.first % 64 == 0
        with nogil:
            for worker in range(workers):
                states[worker].samples = memory.first + worker * self.scratch_size
                states[worker].source = states[worker].samples + self.planes.together * self.sample_size
                states[worker].part = states[worker].source + self.planes_size
                states[worker].met = <Segment*> (states[worker].part + self.part_size)
                states[worker].strip = states[worker].part + self.part_size + self.met_size
                states[worker].result = states[worker].strip + self.strip_size
                states[worker].stored = states[worker].result + (self.result_size if self.stored_size else 0)
                states[worker].bias = states[worker].result + self.result_size + self.stored_size
                states[worker].line = states[worker].bias + cache_lines(self.most_stored)
                states[worker].direct = direct
                states[worker].packed = -1
                states[worker].infinite = False
            for worker in prange(workers, schedule="static", chunksize=1, num_threads=workers):
                if self.by_rows:
                    self.work_by_rows(
                        tasks, &next, from_.first, packing, panels, b.first, to.first, states + worker,
                    )
                else:
                    self.work(tasks, chunk, workers, &next, from_.first, panels, b.first, to.first, states + worker)
            for worker in range(workers):
                infinite |= states[worker].infinite
        return not infinite

    cdef Py_ssize_t chunk(self, Py_ssize_t tasks, int workers) noexcept:
        """How many tasks a worker takes at a time: those of whole boxes, which others then need not pack, if it can."""
        cdef Py_ssize_t boxes = tasks // self.row_groups
        if boxes >= 8 * workers or boxes % workers == 0:
            return self.row_groups * max(1, min(boxes // (8 * workers), 1 << 10))
        return max(1, tasks // (8 * workers))

    cdef void work(
        self, Py_ssize_t tasks, Py_ssize_t chunk, int workers, Py_ssize_t* next, const real* source,
        const real* weights, const real* bias, real* result, Scratch* s,
    ) noexcept nogil:
        """What one worker does: chunks of tasks, each claimed before the last task of the one before it, so that its
        box can be fetched meanwhile; but none that the others might be waiting for."""
        cdef Py_ssize_t t = claim(next, chunk), following, end
        while t < tasks:
            end, following = min(t + chunk, tasks), t
            while t < end:
                following = t + 1
                if following == end:
                    following = claim(next, chunk) if claim(next, 0) + workers * chunk < tasks else tasks
                self.task(t, following if following < tasks else t, source, weights, bias, result, s)
                t += 1
            t = following if following < tasks else claim(next, chunk)

    cdef void work_by_rows(
        self, Py_ssize_t tasks, Py_ssize_t* next, const real* source, Weights packing, const real* weights,
        const real* bias, real* result, Scratch* s,
    ) noexcept nogil:
        """What one worker does where tasks are groups of rows, whose weights it packs."""
        cdef Py_ssize_t at[MAX_DIMS]
        cdef Py_ssize_t size[MAX_DIMS]
        cdef Py_ssize_t n[MAX_DIMS]
        cdef Py_ssize_t t = claim(next, 1), row_group, group, box, first, last
        cdef const real* panels
        cdef real* planes = s.source
        s.ahead.lines = 0
        self.clear_zeros(s)
        while t < tasks:
            row_group, group = t % self.row_groups, t // self.row_groups
            first, last = self.group_panel[row_group * self.classes], self.group_panel[(row_group + 1) * self.classes]
            s.infinite |= not packing.part(group, first, last, weights, s.part)
            panels = s.part - self.panel_start[first]
            for box in range(self.boxes):
                self.place(box, at, size, n)
                s.source = planes + box * self.source_size
                if s.packed != group:
                    self.pack(source + group * self.planes.group, at, n, s)
                self.finish(row_group, group, panels, bias, at, size, result, s)
            s.packed = group
            t = claim(next, 1)

    cdef void place(self, Py_ssize_t box, Py_ssize_t* at, Py_ssize_t* size, Py_ssize_t* n) noexcept nogil:
        """Where a box begins, its size, and that of what is packed for it.

        The boxes along an axis are as nearly of the same size as they can be, counted in units of so many positions.
        """
        cdef Py_ssize_t d, i, units, rest = box % self.boxes
        for d in range(self.dims - 1, -1, -1):
            i, units = rest % self.counts[d], (self.extent[d] + self.unit[d] - 1) // self.unit[d]
            at[d] = i * units // self.counts[d] * self.unit[d]
            size[d] = min((i + 1) * units // self.counts[d] * self.unit[d], self.extent[d]) - at[d]
            n[d] = size[d] + self.halo[d]
            rest = rest // self.counts[d]

    cdef void task(
        self, Py_ssize_t t, Py_ssize_t following, const real* source, const real* weights, const real* bias,
        real* result, Scratch* s,
    ) noexcept nogil:
        """Rows of one group at the positions of one box, of one group of channels; and which task comes next."""
        cdef Py_ssize_t row_group = t % self.row_groups
        cdef Py_ssize_t box = t // self.row_groups  # counts the groups of channels too
        cdef Py_ssize_t group = box // self.boxes
        cdef Py_ssize_t at[MAX_DIMS]
        cdef Py_ssize_t size[MAX_DIMS]
        cdef Py_ssize_t n[MAX_DIMS]
        following = following // self.row_groups
        s.ahead.lines = 0
        if following != box and self.planes.fetches:
            self.place(following, at, size, n)
            self.planes.look_ahead(
                &s.ahead, source + following // self.boxes * self.planes.group, 0, self.planes.channels, at, n,
            )
        self.place(box, at, size, n)
        if self.check and s.packed < 0:
            memset(s.samples, 0, self.scratch_size * sizeof(real))  # nothing there may look like a result
        if s.packed < 0:
            self.clear_zeros(s)
        if s.packed != box:
            self.pack(source + group * self.planes.group, at, n, s)
            s.packed = box
        weights += group * self.panel_start[self.panel_start.shape[0] - 1]
        self.finish(row_group, group, weights, bias, at, size, result, s)

    cdef void clear_zeros(self, Scratch* s) noexcept nogil:
        """The row that all rows without a tap are."""
        if self.zeros:
            memset(s.result + self.result_size - self.row_pitch, 0, self.row_pitch * sizeof(real))

    cdef void finish(
        self, Py_ssize_t row_group, Py_ssize_t group, const real* weights, const real* bias, const Py_ssize_t* at,
        const Py_ssize_t* size, real* result, Scratch* s,
    ) noexcept nogil:
        """Rows of one group at the positions of one box, which is packed."""
        result += group * self.result_group
        if self.multiply(row_group, weights, at, size, result, s):
            return
        if self.stored_size:
            self.add_rows(self.group_row[row_group + 1] - self.group_row[row_group], s)
        elif self.check:
            s.infinite |= not all_finite(s.result, self.result_size)
        self.store(row_group, bias + group * self.results if bias != NULL else NULL, at, size, result, s)

    cdef void pack(self, const real* source, const Py_ssize_t* at, const Py_ssize_t* n, Scratch* s) noexcept nogil:
        """The planes of a box, all channels."""
        cdef Py_ssize_t c = 0, i, count, pitch = self.planes.channel_pitch
        if self.sample_size == 0:
            self.planes.pack(source, 0, self.planes.channels, at, n, n, s.source, pitch)
            return
        while c < self.planes.channels:
            count = min(self.planes.together, self.planes.channels - c)
            self.planes.pack(source, c, count, at, n, n, s.samples, self.sample_size)
            for i in range(count):
                self.plane_sums.add(s.samples + i * self.sample_size, s.source + (c + i) * pitch)
            c += count

    cdef void add_rows(self, Py_ssize_t rows, Scratch* s) noexcept nogil:
        """Rows that are sums of those that were multiplied, channel by channel."""
        cdef Py_ssize_t c, sums = self.row_sums.lines
        for c in range(rows // sums):
            s.infinite |= not self.row_sums.add(
                s.result + c * self.channel_rows * self.row_pitch, s.stored + c * sums * self.row_pitch,
            )

    cdef bint multiply(
        self, Py_ssize_t row_group, const real* weights, const Py_ssize_t* at, const Py_ssize_t* size, real* result,
        Scratch* s,
    ) noexcept nogil:
        """Every panel of weights of the group times every run of positions in the box.

        Returns whether these are in the result now: where runs are part of its lines, tiles may write there.  The last
        tile of a run then begins early enough not to write past its end.
        """
        cdef Py_ssize_t c, strip, segment, first, panels, panel, d, run, start, done, length = 1, runs = 1
        cdef Py_ssize_t e[MAX_DIMS]
        cdef const Segment* segments = <const Segment*> &self.segments[0] if self.segments.shape[0] else NULL
        cdef const Py_ssize_t* begins = &self.group_panel[row_group * self.classes]  # of the classes, among all panels
        cdef const Segment* those
        cdef const Segment* piece
        cdef Segment copy
        cdef const real* b
        cdef const Py_ssize_t* places
        cdef real* to
        cdef Py_ssize_t every, number, count, step, calls = 0
        cdef Py_ssize_t unit = LANES * (LINE_VECTORS if self.past_caches else 1)
        cdef int width, widest = tile_width(self.tile_rows)
        cdef bint in_place
        cdef Store how
        for d in range(self.dims):
            if d < self.flat:
                runs *= size[d]
            else:
                length += (size[d] - 1) * self.pitch[d]
            result += at[d] * self.result_step[d]
        in_place = s.direct and (length % unit == 0 or length >= widest * LANES and not self.past_caches)
        if s.ahead.lines:
            for c in range(self.classes):
                panels = begins[c + 1] - begins[c]
                calls += (self.class_strip[c + 1] - self.class_strip[c]) * (panels + 1) // 2
            calls *= runs * ((length - 1) // (widest * LANES) + 1)
            s.ahead.each = (s.ahead.lines - 1) // max(calls, 1) + 1
        for c in range(self.classes):
            first, panels = begins[c], begins[c + 1] - begins[c]
            if panels == 0:
                continue
            panel = self.panel_start[first + 1] - self.panel_start[first]
            places = &self.panel_rows[first * self.tile_rows]
            if in_place:
                places = &self.panel_results[first * self.tile_rows]
            for strip in range(self.class_strip[c], self.class_strip[c + 1]):
                segment = self.strip_segment[strip]
                for d in range(self.flat):
                    e[d] = 0
                every = self.strip_segment[strip + 1] - segment
                those, number = segments + segment, every
                how = STREAM if in_place and self.past_caches else SET
                if strip > self.class_strip[c]:
                    how = ADD  # to scratch memory: see `panel_results` in `cytconv._correlation`
                for run in range(runs):
                    start, to = 0, result if in_place else s.result + run * self.run_pitch
                    for d in range(self.flat):
                        start += e[d] * self.pitch[d]
                        if in_place:
                            to += e[d] * self.result_step[d]
                    if self.met_size:
                        those, number = s.met, self.segments_met(segment, self.strip_segment[strip + 1], at, e, s.met)
                    # As many positions as a tile is wide stay in L1 while they meet all panels.
                    done = 0
                    while done < length:
                        width = next_width(self.tile_rows, (length - done + LANES - 1) // LANES, how)
                        if in_place:
                            done = min(done, length - width * LANES)
                        b, piece, count, step = s.source + start + done, those, number, self.segment_step
                        if panels >= self.copied and self.strip_size and count == every:
                            copy = copy_strip(width, b, piece, count, step, s.strip)
                            b, piece, count, step = s.strip, &copy, 1, width * LANES
                        multiply_panels(
                            self.tile_rows, width, panels, panel, weights + self.panel_start[first], b, piece, count,
                            step, to + done, places, how, &s.ahead,
                        )
                        done += width * LANES
                    advance(self.flat, size, e)
        if in_place and self.past_caches:
            stream_fence()
        return in_place

    cdef Py_ssize_t segments_met(
        self, Py_ssize_t first, Py_ssize_t last, const Py_ssize_t* at, const Py_ssize_t* e, Segment* met,
    ) noexcept nogil:
        """Those of ``segments[first:last]`` that read samples, e positions into a box; returns how many these are."""
        cdef Py_ssize_t i, d, count = 0
        cdef const Py_ssize_t* within
        cdef bint some
        for i in range(first, last):
            within = &self.segment_range[2 * i * self.flat]
            some = True
            for d in range(self.flat):
                some &= within[2 * d] <= at[d] + e[d] < within[2 * d + 1]
            if some:
                met[count] = (<const Segment*> &self.segments[0])[i]
                count += 1
        return count

    cdef void store(
        self, Py_ssize_t row_group, const real* bias, const Py_ssize_t* at, const Py_ssize_t* size, real* result,
        Scratch* s,
    ) noexcept nogil:
        """Blocks of neighbouring rows to their places in the result."""
        cdef Py_ssize_t last = self.dims - 1, first = self.group_row[row_group]
        cdef Py_ssize_t block, d, i, row, run, slices = 1
        cdef Py_ssize_t e[MAX_DIMS]
        cdef const Py_ssize_t* within
        cdef const real* c
        cdef real* y
        cdef bint outside
        for i in range(self.group_row[row_group + 1] - first):
            s.bias[i] = bias[self.row_channel[first + i]] if bias != NULL else 0
        for d in range(last - 1):
            slices *= size[d]
        for block in range(self.group_block[row_group], self.group_block[row_group + 1]):
            row = self.block_row[block]
            within = &self.block_range[block * self.dims * 2]
            for d in range(last - 1):
                e[d] = 0
            for _ in range(slices):
                y = result + self.row_result[row] + at[last] * self.result_step[last]
                c = s.stored
                run = 0
                outside = False
                for d in range(last - 1):
                    y += (at[d] + e[d]) * self.result_step[d]
                    if d < self.flat:
                        run = run * size[d] + e[d]
                    else:
                        c += e[d] * self.pitch[d]
                    if not within[2 * d] <= at[d] + e[d] < within[2 * d + 1]:
                        outside = True
                if last > 0:
                    y += at[last - 1] * self.result_step[last - 1]
                    if last - 1 < self.flat:
                        run *= size[last - 1]
                if not outside:
                    self.store_lines(block, c + run * self.run_pitch, at, size, s.bias + row - first, y, s.line)
                advance(last - 1, size, e)
        if self.past_caches:
            stream_fence()

    cdef void store_lines(
        self, Py_ssize_t block, const real* c, const Py_ssize_t* at, const Py_ssize_t* size, const real* bias, real* y,
        real* line,
    ) noexcept nogil:
        """One block along the last two axes: lines of neighbours, some of them interleaved in `line` first."""
        cdef Py_ssize_t last = self.dims - 1, step = self.result_step[last], first_row = self.block_row[block]
        cdef Py_ssize_t n = self.block_row[block + 1] - first_row, i, begin, end
        cdef const Py_ssize_t* within = &self.block_range[block * self.dims * 2]
        cdef const Py_ssize_t* row_range = &self.row_range[first_row * 2]
        cdef const Py_ssize_t* place = &self.row_place[first_row]
        cdef Py_ssize_t low = min(max(within[2 * last] - at[last], 0), size[last])
        cdef Py_ssize_t high = max(min(within[2 * last + 1] - at[last], size[last]), low)
        cdef Py_ssize_t row_low = 0, row_high = 1, row_step = 0, pitch = 0
        cdef Py_ssize_t line_low = low * step, line_high = high * step  # of the result, what the block fills
        cdef bint ragged = self.block_ragged[block], filled = self.block_filled[block]
        cdef bint whole = n == step and (filled or self.line_size and (self.past_caches or ragged))
        cdef real* to
        if last > 0:
            row_step = self.result_step[last - 1]
            pitch = self.run_pitch if last - 1 < self.flat else self.pitch[last - 1]
            row_low = min(max(within[2 * last - 2] - at[last - 1], 0), size[last - 1])
            row_high = max(min(within[2 * last - 1] - at[last - 1], size[last - 1]), row_low)
        if ragged and whole:
            line_low, line_high = size[last] * step, 0
            for i in range(n):
                begin, end = max(row_range[2 * i] - at[last], 0), min(row_range[2 * i + 1] - at[last], size[last])
                if begin < end:
                    line_low, line_high = min(line_low, begin * step + i), max(line_high, (end - 1) * step + i + 1)
            line_high = max(line_low, line_high)
            low, high = line_low // step, (line_high + step - 1) // step
        if filled:
            y += row_low * row_step
            for _ in range(row_low, row_high):
                fill_line(line_high - line_low, bias[0], y + line_low)
                y += row_step
            return
        if whole:
            line += cache_lines(low * step) - low * step  # so that no vector is written across two cache lines
        c += row_low * pitch
        y += row_low * row_step
        if n == 1 and step == 1:
            if pitch == row_step == high - low:  # rows that follow each other, here and there
                line_high, row_high = line_low + (high - low) * (row_high - row_low), row_low + 1
            for _ in range(row_low, row_high):
                if whole:
                    stream(c + place[0] + line_low, line_high - line_low, bias[0], y + line_low)
                else:
                    store_line(c + place[0] + line_low, line_high - line_low, bias[0], y + line_low, 1)
                c += pitch
                y += row_step
            return
        for _ in range(row_low, row_high):
            to = line if whole else y
            FETCH(c + place[0] + low + 2 * pitch)  # lines may be too short for the CPU to expect the next ones
            FETCH(c + place[0] + low + 2 * pitch + PER_LINE)
            store_block(n, c + low, place, high - low, bias, to + low * step, step)
            if self.past_caches and whole:
                stream(to + line_low, line_high - line_low, 0, y + line_low)
            elif whole:
                memcpy(y + line_low, to + line_low, (line_high - line_low) * sizeof(real))
            elif ragged:
                for i in range(n):
                    # What one row has before and after the positions that all of them have.
                    begin, end = max(row_range[2 * i] - at[last], 0), min(row_range[2 * i + 1] - at[last], size[last])
                    store_line(
                        c + place[i] + begin, min(low, end) - begin, bias[i], to + i + begin * step, step,
                    )
                    begin = max(begin, high)
                    store_line(c + place[i] + begin, end - begin, bias[i], to + i + begin * step, step)
            c += pitch
            y += row_step

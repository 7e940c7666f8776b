"""A Python function for each of several items, by threads that wait awake for a while.

A thread that waits asleep takes as long to wake as a small transform, if its CPU has not been given to others, and far
longer if it has.  So those that have helped look out for more work, without the interpreter, before they sleep again;
and nobody waits for one that is still asleep.
"""

cdef extern from *:
    """
    #if defined(_MSC_VER) && !defined(__clang__)
      #include <intrin.h>
      #include <windows.h>
      static Py_ssize_t look(Py_ssize_t *n) { return *(volatile Py_ssize_t *)n; }
      static void add(Py_ssize_t *n, Py_ssize_t more) { _InterlockedExchangeAdd64(n, more); }
      static void yield_cpu(void) { SwitchToThread(); }
    #else
      #include <sched.h>
      static Py_ssize_t look(Py_ssize_t *n) { return __atomic_load_n(n, __ATOMIC_ACQUIRE); }
      static void add(Py_ssize_t *n, Py_ssize_t more) { __atomic_fetch_add(n, more, __ATOMIC_ACQ_REL); }
      static void yield_cpu(void) { sched_yield(); }
    #endif
    """
    Py_ssize_t look(Py_ssize_t* n) noexcept nogil
    void add(Py_ssize_t* n, Py_ssize_t more) noexcept nogil
    void yield_cpu() noexcept nogil  # to a thread that waits for this one's, if there is one

cdef enum:
    AWAKE = 500  # times to look for more work before a thread sleeps, a fraction of a millisecond


cdef class Crew:
    """Threads of a pool, an `Executor` of `concurrent.futures`, that help whoever calls `map`.

    All but the waiting happens with the interpreter, so that between two calls to Python nothing else happens:

        map     adds a work, counts it, asks for helpers if there are fewer, does what it can, waits for `busy` helpers
        helper  reads the count, helps with every work there is, watches the count for a while, leaves

    A helper counts as busy before it takes an item, and takes one only while there are any.  So when the caller has
    found no more items, and then nobody busy, all of them are done; a helper that comes later finds nothing.
    """

    cdef object _pool
    cdef list _works  # that are not done
    cdef Py_ssize_t _begun, _helpers  # how many works there have been, and helpers that are awake, or are to wake

    def __cinit__(self, pool):
        self._pool, self._works = pool, []

    def map(self, f, items, Py_ssize_t threads):
        """``[f(item) for item in items]``, side by side wherever f leaves the interpreter to others.

        Every thread takes the next item, the calling one too.  If there is an error no thread takes any more.
        """
        cdef Work work = Work(f, items, threads - 1)
        self._works.append(work)
        add(&self._begun, 1)
        try:
            while look(&self._helpers) < threads - 1 and self._ask():
                pass
            work.do()
        finally:  # whatever has interrupted this
            self._works.remove(work)
            work.end()
        if work.error is not None:
            raise work.error
        return work.results

    cdef bint _ask(self) except -1:
        """Have one helper more, if there can be one."""
        cdef list asked = [None]  # the helper takes this with it, and then it is the one to count itself out
        add(&self._helpers, 1)
        try:
            self._pool.submit(self._help, asked)
        except RuntimeError:  # no more threads: there are too many, or the interpreter is about to end
            return False
        else:
            asked = []
        finally:
            if asked:
                asked.clear()
                add(&self._helpers, -1)
        return True

    def _help(self, list asked):
        cdef Py_ssize_t begun
        cdef int _turn
        if not asked:
            return
        asked.clear()
        try:
            while True:
                begun = look(&self._begun)
                for work in list(self._works):
                    (<Work>work).help()
                work = None
                with nogil:
                    for _turn in range(AWAKE):
                        if look(&self._begun) != begun:
                            break
                        yield_cpu()
                if look(&self._begun) == begun:
                    return
        finally:
            add(&self._helpers, -1)


cdef class Work:
    cdef object f, error
    cdef list todo, results
    cdef Py_ssize_t wanted, busy  # helpers

    def __cinit__(self, f, items, Py_ssize_t wanted):
        self.f, self.wanted = f, wanted
        self.todo = list(enumerate(items))[::-1]
        self.results = [None] * len(self.todo)

    cdef do(self):
        while self.todo and self.error is None:
            try:
                i, item = self.todo.pop()
            except IndexError:  # another thread was faster
                return
            try:
                self.results[i] = self.f(item)
            except BaseException as error:
                self.error = error

    cdef help(self):
        if look(&self.busy) < self.wanted:
            add(&self.busy, 1)
            self.do()
            add(&self.busy, -1)

    cdef end(self):
        """Have no items left, wait until helpers have finished what they have begun, and let go of what f holds."""
        self.todo.clear()
        with nogil:
            while look(&self.busy):
                yield_cpu()
        self.f = None

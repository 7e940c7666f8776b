# OpenMP where the build has it; without, one thread whose number is 0.

cdef extern from *:
    """
    #ifdef _OPENMP
      #include <omp.h>
      #define OPENMP 1
    #else
      #define OPENMP 0
      #define omp_get_thread_num() 0
      #define omp_get_max_threads() 1
    #endif

    #if defined(_MSC_VER) && !defined(__GNUC__)
      #include <intrin.h>
    #endif

    /* Take n of what is counted by `next`, which other threads do too; returns the first. */
    static inline Py_ssize_t claim(Py_ssize_t *next, Py_ssize_t n) {
    #if defined(__GNUC__)
        return __atomic_fetch_add(next, n, __ATOMIC_RELAXED);
    #elif defined(_MSC_VER)
        return _InterlockedExchangeAdd64(next, n);
    #else
        *next += n;
        return *next - n;
    #endif
    }
    """
    Py_ssize_t claim(Py_ssize_t* next, Py_ssize_t n) noexcept nogil
    int thread_number "omp_get_thread_num"() noexcept nogil
    int max_threads "omp_get_max_threads"() noexcept nogil
    const bint OPENMP

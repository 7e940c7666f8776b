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
    """
    int thread_number "omp_get_thread_num"() noexcept nogil
    int max_threads "omp_get_max_threads"() noexcept nogil
    const bint OPENMP

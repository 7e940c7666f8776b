"""What the CPU has, and the operating system lets run."""

cdef extern from *:
    """
    #if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
      /* asks the CPU and, for the wide registers, the operating system */
      static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
      static int is_intel(void) { return __builtin_cpu_is("intel"); }
      static int has_avx512(void) {
          return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
              && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
      }
    #else
      static int has_avx2(void) { return 0; }
      static int is_intel(void) { return 0; }
      static int has_avx512(void) { return 0; }
    #endif

    #if defined(__unix__) || defined(__APPLE__)
      #include <unistd.h>
    #endif
    static long cache_size(int level) {
    #if defined(_SC_LEVEL1_DCACHE_SIZE) && defined(_SC_LEVEL2_CACHE_SIZE) && defined(_SC_LEVEL3_CACHE_SIZE)
        return sysconf(
            level == 1 ? _SC_LEVEL1_DCACHE_SIZE : level == 2 ? _SC_LEVEL2_CACHE_SIZE : _SC_LEVEL3_CACHE_SIZE);
    #else
        return 0;
    #endif
    }
    """
    bint has_avx2() noexcept
    bint is_intel() noexcept
    bint has_avx512() noexcept
    long cache_size(int level) noexcept


def supported():
    """Names of the instruction sets that run here, best first."""
    return [*(["avx512"] if has_avx512() else []), *(["avx2"] if has_avx2() else []), "baseline"]


def vendor():
    """Who made it, as far as that makes a difference: "intel" or "other"."""
    return "intel" if is_intel() else "other"


def cache_bytes(int level):
    """Size of the cache of data of level 1, 2 or 3 that a core sees, in bytes; 0 if the system does not tell."""
    return max(cache_size(level), 0)

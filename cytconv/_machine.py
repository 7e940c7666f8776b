"""What plans assume of the CPU: how much its caches hold, how fast it multiplies, and what it does by itself.

Two CPUs with AVX-512 stand for all others, as they are unlike in everything.  A Xeon multiplies two vectors of 512 bits
in a cycle, beside which whatever else is to be done weighs twice as much; and it finds by itself the lines that are
packed next: there the kernels were up to 1.4 times as fast when nothing else asked for these.  AMD's Zen 4 multiplies
one vector of 512 bits or two of 256, and was as much faster when something did ask.  Where two vectors are multiplied
in a cycle, they must be loaded as fast: from few pages, and never across cache lines.
"""

from __future__ import annotations

from ._runtime import ISA
from .kernels import cpu

__all__ = ["COPIED", "FETCHES", "KIB", "L1_BYTES", "L2_BYTES", "L3_BYTES", "PER_CYCLE", "ROOM_BYTES", "WIDE", "WIDEST"]

KIB = 1024
# A core's caches, the last of which it may share, within what the plans were tried with; as many CPUs have them if the
# system does not tell.
L1_BYTES = min(max(cpu.cache_bytes(1) or 32 * KIB, 32 * KIB), 48 * KIB)
L2_BYTES = min(max(cpu.cache_bytes(2) or 512 * KIB, 256 * KIB), 2048 * KIB)
L3_BYTES = min(cpu.cache_bytes(3), 32 * KIB**2)
ROOM_BYTES = max(4 * KIB**2, L3_BYTES * 3 // 4)  # of a result that stays in the last one for whoever reads it

FETCHES = cpu.vendor() != "intel"  # whether what is packed soon is to be fetched ahead
WIDEST = ISA == "avx512"  # vectors of 512 bits
PER_CYCLE = 1 if WIDEST and cpu.vendor() != "intel" else 2  # vectors that are multiplied and added in a cycle
WIDE = 2 if WIDEST and PER_CYCLE == 2 else 1  # numbers multiplied in a cycle, relative to two 256-bit vectors
COPIED = 12 if PER_CYCLE == 2 else 0  # panels of weights that are worth to copy what they meet; 0 if none are

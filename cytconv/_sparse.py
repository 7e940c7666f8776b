"""Method "sparse" (temporary stand-in)."""
from ._direct import Direct as Sparse

"""Compiled kernels; private.  One module for each instruction set and precision, all from the same source."""

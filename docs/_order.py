"""The order of the examples in the gallery: as one would read them."""

from pathlib import Path

EXAMPLES = [
    "plot_article",
    "plot_shapes",
    "plot_matrix",
    "plot_phases",
    "plot_adjoints",
    "plot_unet",
    "plot_checkerboard",
    "plot_super_resolution",
    "plot_two_layers",
    "plot_singular_values",
    "plot_direct_solve",
]


class Order:
    """Sort key of file names: those in `EXAMPLES` first, in its order, then any others by name."""

    def __init__(self, src_dir):
        pass

    def __call__(self, filename):
        name = Path(filename).stem
        return (EXAMPLES.index(name), "") if name in EXAMPLES else (len(EXAMPLES), name)

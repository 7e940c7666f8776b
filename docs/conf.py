"""Sphinx's configuration; `docs/check` builds the pages, with warnings as errors."""

import inspect
import sys
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from sphinx.errors import ConfigError

import cytconv

HERE = Path(__file__).parent
sys.path.append(str(HERE))  # for _order

project = "cytconv"
author = "cytconv developers"
copyright = "cytconv developers"
version = release = cytconv.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery/*.rst"]
templates_path = ["_templates"]
highlight_language = "text"  # where a block does not say what it is
default_role = "autolink"  # a link where there is something of that name, else just emphasis, as for arguments

# ---- the reference ---------------------------------------------------------------------------------------

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc says the types, in words
numpydoc_show_class_members = False  # the template of classes lists what is our own


def signature(app, what, name, obj, options, arguments, returns):
    """That of ``__init__``: scipy's LinearOperator hides it behind a ``__new__`` that takes anything."""
    if what == "class":
        _self, *others = inspect.signature(obj.__init__).parameters.values()
        plain = [parameter.replace(annotation=parameter.empty) for parameter in others]
        arguments = str(inspect.Signature(plain))
    return arguments, returns


def setup(app):
    app.connect("autodoc-process-signature", signature)


listed = (HERE / "api.rst").read_text(encoding="utf-8").split()
if missing := [name for name in cytconv.__all__ if name not in listed]:
    raise ConfigError(f"docs/api.rst must list every public name; it lacks {', '.join(missing)}")

# ---- links to numpy and scipy, where a network is there -----------------------------------------------------


def reachable(url):
    try:
        with urlopen(url + "objects.inv", timeout=5):
            return True
    except (URLError, TimeoutError):
        return False


neighbours = {"numpy": "https://numpy.org/doc/stable/", "scipy": "https://docs.scipy.org/doc/scipy/"}
intersphinx_mapping = {name: (url, None) for name, url in neighbours.items() if reachable(url)}
nitpick_ignore_regex = [("py:.*", rf"{name}\..*") for name in neighbours if name not in intersphinx_mapping]

# ---- the pages ---------------------------------------------------------------------------------------------

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_examples",
    "within_subsection_order": "_order.Order",
    "ignore_pattern": r"drawing\.py",  # what the examples import
    "copyfile_regex": r"drawing\.py",
    "ignore_repr_types": r"matplotlib|drawing",
    "doc_module": ("cytconv",),
    "reference_url": {"cytconv": None},
    "backreferences_dir": "generated/backreferences",
    "download_all_examples": False,
    "remove_config_comments": True,
    "min_reported_time": 1e9,  # seconds; times of a shared machine would change each page on each build
    "write_computation_times": False,
}

# ---- the look ------------------------------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = "cytconv"
html_static_path = ["_static"]
html_css_files = ["cytconv.css"]
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {page.stem: [] for page in HERE.glob("*.md")}  # nothing to navigate beside a single page
html_theme_options = {
    "logo": {"text": "cytconv"},
    "header_links_before_dropdown": 5,
    "navbar_end": ["theme-switcher"],
    "navigation_with_keys": False,
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
}

"""The site: MyST pages, notebooks kept as text, and reference pages that are generated from the code itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from reference_pages import write_reference_pages  # noqa: E402

from sphereml import __version__  # noqa: E402

project, author, release = "sphereml", "The sphereml developers", __version__
copyright = f"2026, {author}"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "README.md"]
myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
nb_custom_formats = {".py": "reference_pages.read_notebook"}
# A notebook is executed when it changed; SPHEREML_DOCS_EXECUTE=off builds the pages without their outputs.
nb_execution_mode = os.environ.get("SPHEREML_DOCS_EXECUTE", "cache")
nb_execution_cache_path = str(HERE / "_build" / "notebooks")
nb_execution_timeout = 600
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"
source_suffix = {".md": "myst-nb", ".rst": "restructuredtext", ".py": "myst-nb"}
exclude_patterns += ["conf.py", "reference_pages.py"]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": False}
napoleon_use_rtype = False
napoleon_use_ivar = True
html_theme = "pydata_sphinx_theme"
html_title = f"sphereml {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "navigation_depth": 2,
    "show_toc_level": 2,
    "header_links_before_dropdown": 6,
    "use_edit_page_button": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_context = {"default_mode": "auto"}
html_sidebars = {"index": []}
# Pages that say no language for a block of output or of a table of keys.
suppress_warnings = ["misc.highlighting_failure", "mystnb.unknown_mime_type"]


# Browsers draw MathML themselves: no script, nothing from the network.
html_math_renderer = "mathml"


def render_inline(writer: Any, node: nodes.Element) -> None:
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def render_block(writer: Any, node: nodes.Element) -> None:
    writer.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", inline_renderers=(render_inline, None), block_renderers=(render_block, None))
    app.connect("builder-inited", lambda app: write_reference_pages(HERE / "generated"))

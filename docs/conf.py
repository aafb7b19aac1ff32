"""Sphinx builds the notebooks that scripts/docs.py has prepared; outputs are the stored ones."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

parser = ConfigParser(delimiters=["="], interpolation=None)
parser.read(Path(__file__).parent.parent / "settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]

project = settings["lib_name"]
author = settings["author"]
version = release = settings["version"]
project_copyright = settings["copyright"]

extensions = ["myst_nb"]
nitpicky = True
nb_execution_mode = "off"
nb_render_markdown_format = "myst"
# By default myst-nb loads require.js and the widgets' scripts from a CDN.
nb_ipywidgets_js: dict[str, dict[str, str]] = {}
myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
# As in Quarto: "$5 and $6" are two prices and no formula.
myst_dmath_allow_space = False
myst_dmath_allow_digits = False

html_theme = "furo"
# The default underlines the name of every imported module.
pygments_dark_style = "github-dark"
html_title = settings["title"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False


def visit_inline_math(translator: HTML5Translator, node: nodes.math) -> None:
    """Write inline math as MathML, which browsers draw themselves."""
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def visit_block_math(translator: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula of its own as MathML."""
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Sphinx's own renderers of math need a CDN or LaTeX."""
    app.add_html_math_renderer("mathml", (visit_inline_math, None), (visit_block_math, None))

"""The site: Sphinx over these pages and the docstrings; ``python3 run.py docs`` builds and serves it.

Nothing is loaded from elsewhere, neither fonts nor scripts: the site reads and its search works without a network, from
files too. Formulas become MathML, which browsers draw by themselves.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util.inspect import TypeAliasForwardRef

import analogsim

HERE = Path(__file__).resolve().parent

project = "analogsim"
copyright = "the authors of analogsim; Apache-2.0"
version = release = analogsim.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build", "_site", "**/.*"]
source_suffix = {".md": "markdown"}
root_doc = "index"
nitpicky = False
default_role = "py:obj"  # a name in single backticks is a link where it is one of ours
add_module_names = False

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # a page may begin its sections where its subject asks for it

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True  # as the code has them: crossbar=IDEAL, not all of its fields
autodoc_mock_imports = ["lightning"]  # which takes seconds to import, and is an extra
# Unions that have a name go by it; the text of the argument says what they may be.
NAMED = (
    "DeviceLike",
    "Devices",
    "CrossbarLike",
    "Crossbars",
    "CompensationLike",
    "MetricLike",
    "Faults",
    "KnownFaults",
)
NAMED += ("Inputs", "Ages", "Ranges", "OnChip", "Clean", "FloatArray")
autodoc_type_aliases = {name: name for name in NAMED}
TypeAliasForwardRef.__repr__ = lambda self: self.name  # in a union Sphinx writes what repr says
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = "analogsim"
html_static_path = ["_static"]
html_css_files = ["analogsim.css"]
html_show_sphinx = False
html_math_renderer = "mathml"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
highlight_language = "text"  # of indented blocks, which are commands and what they print

# Files at the checkout's root that are pages here.
PAGES = {
    "CONTRIBUTING.md": "contributing",
    "CHANGELOG.md": "changelog",
    "SECURITY.md": "security",
    "README.md": "index",
}
PAGES |= {"examples/README.md": "examples"}


def lead_inside(app: Sphinx, name: str, source: list[str]) -> None:
    """Turn links to files beside docs/ into links to their pages here, or into the bare path where there is no page."""
    folder = (HERE / name).parent

    def moved(match: re.Match[str]) -> str:
        text, link, anchor = match[1], match[2], match[3] or ""
        if re.match(r"[a-z]+:", link):
            return match[0]
        for base in (folder, HERE.parent, HERE.parent / "examples"):
            path = (base / link).resolve()
            if path.exists():
                break
        if not path.is_relative_to(HERE.parent):
            return match[0]
        relative = path.relative_to(HERE.parent).as_posix()
        if relative in PAGES:
            return f"[{text}]({'../' * name.count('/')}{PAGES[relative]}.md{anchor})"
        if relative.startswith("docs/"):
            return f"[{text}]({'../' * name.count('/')}{relative.removeprefix('docs/')}{anchor})"
        return text if text.startswith("`") else f"`{relative}`"

    included = re.fullmatch(r"```\{include\} (\S+)\n```\n*", source[0])
    if included:
        source[0] = (folder / included[1]).read_text(encoding="utf-8")
        folder = (folder / included[1]).resolve().parent
    source[0] = re.sub(r"(?<!!)\[([^\]\[]*)\]\(([^)#\s]+)(#[^)\s]*)?\)", moved, source[0])


def draw_formula(self: Any, node: nodes.math | nodes.math_block) -> None:
    """Put a formula as MathML."""
    block = isinstance(node, nodes.math_block)
    text = tex2mathml(node.astext().replace(r"\dots", r"\ldots"), as_block=block)
    self.body.append(f'<div class="math">{text}</div>' if block else text)
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """What Sphinx calls."""
    app.connect("source-read", lead_inside)
    app.add_html_math_renderer("mathml", (draw_formula, None), (draw_formula, None))

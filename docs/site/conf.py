"""The site of the documentation, which `make docs` builds: settings of Sphinx.

The pages stay where the repository shows them, so that their links hold in both places: the source
is the whole repository, of which only the pages are read. A link to any other file of it, such as a
schema, becomes a copy of that file in the site.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
_about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = _about["name"]
release = version = _about["version"]
copyright = f"{project}'s contributors, {_about['license']}"

root_doc = "README"
include_patterns = [
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
    *("docs/*.md", "docs/decisions/*.md", "docs/reference/*.md"),
    "deploy/helm/reviewmesh/README.md",
    "inference-worker/reviewmesh_worker/bundled/*/MODEL_CARD.md",
]
# Not searched for pages.
exclude_patterns = [".*", "build", "dist", "tests", "services", "node_modules"]

extensions = ["myst_parser", "sphinx_external_toc"]
# Who reads what.
external_toc_path = "docs/site/navigation.yaml"
source_suffix = {".md": "markdown"}
# Headings are named in links as the repository's pages name them.
myst_heading_anchors = 6
nitpicky = True

html_theme = "furo"
html_title = f"{project} {release}"
html_show_sourcelink = False
html_copy_source = False
templates_path = ["templates"]
# The first page has the name of its file.
html_additional_pages = {"index": "to_first_page.html"}

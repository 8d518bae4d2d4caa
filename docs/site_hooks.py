"""MkDocs hook: pages of the site that are files of the repository's root."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root, with their links as the site needs them."""
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=from_root((ROOT / source).read_text("utf-8"))))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links from docs/ to the pages of the root."""
    for source, page in PAGES.items():
        markdown = re.sub(rf"(\]\((?:\.\./)*)\.\./{source}", rf"\1{page}", markdown)
    return markdown


def from_root(markdown: str) -> str:
    """The text of a page of the root, as a page of docs/. The licence is no page: its link becomes text."""
    markdown = markdown.replace("](docs/", "](").replace("[Apache-2.0](LICENSE)", "Apache-2.0")
    for source, page in PAGES.items():
        markdown = markdown.replace(f"]({source}", f"]({page}")
    return markdown

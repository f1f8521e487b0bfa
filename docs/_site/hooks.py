"""What the site needs beyond MkDocs, so that the same Markdown reads well on a code host.

The navigation is the index `docs/README.md`. Pages outside of `docs` that readers of the site want are brought in, a
page of docstrings is made, and links that leave the site lead to the repository, once its address is known.
"""

from __future__ import annotations

import ast
import logging
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent.parent
KINDS = ("Tutorial", "How-to guides", "Reference", "Explanation")
FOLDERS = {"how-to": "How-to guides", "reference": "Reference"}
"""Whose pages are of one kind, also if another part of the index mentions them first."""
PLACES = {
    "README.md": "index.md",
    "docs/README.md": "contents.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "CODE_OF_CONDUCT.md": "project/conduct.md",
    "benchmarks/README.md": "project/benchmarks.md",
    "contrib/README.md": "project/contrib.md",
}
"""Where the site has pages that lie elsewhere in the repository; every other page keeps its place in `docs`."""
DOCSTRINGS = "reference/docstrings.md"
MEMBERS = {"Store": ["get_sample_value", "flush"], "MultiProcessCollector": ["collect", "merge"]}
"""The methods of public classes that are public, too."""

_INTRO = """# Docstrings

Every public name of `sqlmetrics` with its signature and its docstring.
[Python API](api.md) describes the same names at greater length, with examples.
"""
_log = logging.getLogger("mkdocs.hooks.sqlmetrics")
_FENCES = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^)\s]+)\)")
_GROUP = re.compile(r"^(?P<title>[A-Z][\w ]+?)(?: \(.*\))?:$", re.MULTILINE)
_HEADING = re.compile(r"^(?:\*\*|## )(?P<title>[^*\n,]+)", re.MULTILINE)


def on_config(config: Any) -> Any:
    """Make the navigation: the four kinds of pages, and the project's own."""
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    pages = kinds(index)
    pages["Reference"].append(DOCSTRINGS)
    project = [place for place in PLACES.values() if place != "index.md"]
    config.nav = [{"Home": "index.md"}, *({kind: grouped(pages[kind], index)} for kind in KINDS), {"Project": project}]
    return config


def kinds(index: str) -> dict[str, list[str]]:
    """The pages of each kind, as the index has them under headings that begin with the kind's name."""
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    parts = _HEADING.split(index)
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        kind = next((kind for kind in KINDS if title.strip().startswith(kind)), None)
        targets = [link["target"].partition("#")[0] for link in _LINK.finditer(text)]
        pages = [one for one in targets if one.endswith(".md") and not one.startswith((".", "http"))]
        if kind is not None:
            found[kind].extend(one for one in pages if FOLDERS.get(one.partition("/")[0], kind) == kind)
    return {kind: list(dict.fromkeys(pages)) for kind, pages in found.items()}


def grouped(pages: list[str], index: str) -> list[Any]:
    """These pages under the titles that the index has above them: a line such as "To begin:"; first those without."""
    rest, found = list(pages), []
    parts = _GROUP.split(index)
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        own = [page for page in rest if f"({page})" in text.partition("\n**")[0]]
        rest = [page for page in rest if page not in own]
        found += [{title: own}] if own else []
    return [*rest, *found]


def on_files(files: Files, config: Any) -> Files:
    """Bring in the pages that lie elsewhere, and the one that is made from docstrings."""
    for source, place in PLACES.items():
        known = files.get_file_from_path(source.removeprefix("docs/")) if source.startswith("docs/") else None
        if known is not None:
            files.remove(known)
        files.append(File.generated(config, place, content=(ROOT / source).read_text("utf-8")))
    files.append(File.generated(config, DOCSTRINGS, content=docstrings()))
    return files


def docstrings() -> str:
    """The page that mkdocstrings fills: one heading for each public name."""
    tree = ast.parse((ROOT / "sqlmetrics" / "__init__.py").read_text("utf-8"))
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    names = next(ast.literal_eval(node.value) for node in assigned if ast.unparse(node.targets[0]) == "__all__")
    return "\n".join([_INTRO, *(f"::: sqlmetrics.{name}\n{_members(name)}" for name in names)])


def _members(name: str) -> str:
    """The options of a name: none of its members, but those that are public."""
    return f"    options:\n      members: {MEMBERS.get(name) or 'false'}\n"


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Turn the links of a page from where it lies in the repository to where it is on the site."""
    here = page.file.src_uri
    source = next((source for source, place in PLACES.items() if place == here), f"docs/{here}")

    def turned(link: re.Match[str]) -> str:
        return _turned(link, source, here, (config.repo_url or "").rstrip("/"))

    parts = _FENCES.split(markdown)
    parts[::2] = [_LINK.sub(turned, part) for part in parts[::2]]
    return "".join(parts)


def _turned(link: re.Match[str], source: str, here: str, repository: str) -> str:
    path, mark, anchor = link["target"].partition("#")
    if "://" in path or not path:
        return link[0]
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if not (ROOT / wanted).exists():
        _log.warning("%s links to %s, which does not exist", source, wanted)
    place = PLACES.get(wanted, wanted.removeprefix("docs/") if wanted.startswith("docs/") else None)
    if place is not None and (ROOT / wanted).is_file():
        return f"[{link['text']}]({posixpath.relpath(place, posixpath.dirname(here) or '.')}{mark}{anchor})"
    if (ROOT / wanted).is_dir() and wanted.startswith("docs/"):
        return f"[{link['text']}]({posixpath.relpath('contents.md', posixpath.dirname(here) or '.')})"
    return (
        f"[{link['text']}]({repository.rstrip('/')}/blob/main/{wanted}{mark}{anchor})" if repository else link["text"]
    )

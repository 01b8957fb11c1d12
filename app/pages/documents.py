"""docs/*.md and the README as HTML, with links that lead to one another. Serves the names it found at start, and nothing else."""

import re
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path, PurePosixPath

from markdown_it import MarkdownIt
from markdown_it.token import Token
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from app.pages.files import HERE, File, packed

# title and body as HTML to the page that has them
Frame = Callable[[str, str], File]
IMAGES = (".png", ".svg")


class Documents:
    """An ASGI app for /docs/ and /docs/{name}. Empty where the docs were not installed."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        found = _found()
        self._paths = {path.stem.lower(): path for path in found}
        self._images = {path.name: path for page in found[-1:] for path in page.parent.iterdir() if path.suffix in IMAGES}
        self._markdown = MarkdownIt("js-default", {"html": False})
        self._page, self._image = cache(self._rendered), cache(self._picture)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path_params"].get("name", "")
        if name in self._images:
            await self._image(name)(scope, receive, send)
        elif self._paths and (not name or name in self._paths):
            await self._page(name)(scope, receive, send)
        else:
            raise HTTPException(404)

    def __bool__(self) -> bool:
        return bool(self._paths)

    def _picture(self, name: str) -> File:
        path = self._images[name]
        return File(path.suffix, packed(path.read_bytes()))

    def _rendered(self, name: str) -> File:
        return self._frame("Docs", self._index()) if not name else self._document(self._paths[name])

    def _index(self) -> str:
        titles = {name: _title(path) for name, path in self._paths.items()}
        return str(self._markdown.render("# Docs\n\n" + "".join(f"- [{title}](/docs/{name})\n" for name, title in titles.items())))

    def _document(self, path: Path) -> File:
        tokens = self._markdown.parse(path.read_text(encoding="utf-8"))
        for heading, content in pairwise(tokens):
            if heading.type == "heading_open":
                heading.attrSet("id", _slug(content.content))
        for token in tokens:
            self._lead(token.children or [])
        return self._frame(_title(path), self._markdown.renderer.render(tokens, self._markdown.options, {}))

    def _lead(self, inline: list[Token]) -> None:
        """Point links and images to where they are served; what is not served stays as its text."""
        for place, token in enumerate(inline):
            if token.type == "link_open":
                self._lead_link(token, next(end for end in inline[place:] if end.type == "link_close"))
            elif token.type == "image":
                name = PurePosixPath(str(token.attrGet("src"))).name
                if name in self._images:
                    token.attrSet("src", f"/docs/{name}")
                else:
                    token.type = "text"

    def _lead_link(self, token: Token, end: Token) -> None:
        href = str(token.attrGet("href"))
        if re.match(r"https?:|#|/docs/", href):
            return
        path, mark, fragment = href.partition("#")
        name = PurePosixPath(path).stem.lower()
        if str(PurePosixPath(path).parent) in (".", "..", "docs") and path.endswith(".md") and name in self._paths:
            token.attrSet("href", f"/docs/{name}{mark}{fragment}")
        else:
            token.tag = end.tag = "span"
            token.attrs = {}


def _found() -> list[Path]:
    """The README, then the docs by name: beside the pages, where a wheel has them, else in the checkout."""
    installed, checkout = HERE / "docs", HERE.parents[1]
    if installed.is_dir():
        return sorted(installed.glob("*.md"), key=lambda path: (path.name != "README.md", path.name))
    # another package may have left a folder of that name beside ours
    if (checkout / "pyproject.toml").is_file():
        return [checkout / "README.md", *sorted((checkout / "docs").glob("*.md"))]
    return []


def _title(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def _slug(heading: str) -> str:
    """As the forges make it of a heading, so that a link written for them leads here too."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")

"""The pages: links, anchors and paths lead somewhere."""

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PAGES = [
    *(CHECKOUT / name for name in ("README.md", "DATASETS.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((CHECKOUT / "docs").rglob("*.md")),
    CHECKOUT / "results" / "README.md",
    CHECKOUT / "toolbox" / "README.md",
    CHECKOUT / "tests" / "golden" / "README.md",
]
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)(?: \"[^\"]*\")?\)")
CODE = re.compile(r"`([^`\n]+)`")
# Folders whose paths are checked; data/, output/ and downloads/ are the user's.
FOLDERS = {".ci", ".github", "clip_patches", "clusterprompt", "configs", "datasets", "docs", "scripts", "tests"}
FOLDERS |= {"toolbox", "trainers"}


def read(page: Path) -> tuple[str, str]:
    """Return a page's text without its blocks of code, and the blocks."""
    text = page.read_text(encoding="utf-8")
    return FENCE.sub("", text), "\n".join(match[0] for match in FENCE.finditer(text))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings, and those written as HTML."""
    text, _ = read(page)
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *#*$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)  # a link's text
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other) is not None for other in found)
        found.add(f"{slug}-{number}" if number else slug)
    return found | set(re.findall(r"<a (?:name|id)=\"([^\"]+)\"", text))


def broken_links(page: Path) -> list[str]:
    """Return the relative links of a page that lead nowhere."""
    broken = []
    for link in LINK.findall(read(page)[0]):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if re.match(r"[a-z]+:", link):
            continue
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    return broken


def is_path(word: str) -> bool:
    """Tell whether a word names a file or folder of the checkout, not a pattern such as ``trainers/<name>.py``."""
    first, _, rest = word.partition("/")
    return first in FOLDERS and not re.search(r"[<>{}|$\s]|\.\.\.|…", rest) and "/" in word


def paths(page: Path) -> set[str]:
    """Return the paths of the checkout that a page names in code: anywhere in a line, of scripts also in blocks."""
    text, blocks = read(page)
    words = {word for code in CODE.findall(text) for word in code.split()}
    words |= {word for word in blocks.split() if word.startswith("scripts/")}
    words = {re.split(r"[:#]", word.strip("\"'()[],;").rstrip("."))[0].removeprefix("./") for word in words}
    return {word for word in words if is_path(word)}


def missing(page: Path) -> list[str]:
    """Return the paths that a page names and the checkout lacks; a * stands for any name."""
    own = page.read_text(encoding="utf-8")
    return [
        path
        for path in sorted(paths(page))
        # a walk-through names the files that its reader is going to write, as titles of blocks of code
        if not list(CHECKOUT.glob(path.rstrip("/"))) and f"`{path}`:\n\n```" not in own and f"# {path}\n" not in own
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links(page):
    """Catches: a link to a page, a file or a heading that moved."""
    assert not broken_links(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_paths(page):
    """Catches: a file that a page names by its old path, a command that runs a script that is gone."""
    if page.name == "CHANGELOG.md":
        pytest.skip("it names what is gone")
    assert not missing(page)


def test_what_is_broken_is_found(tmp_path):
    """Catches: a search that finds nothing because its patterns fit nothing."""
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b` c\n## Two, again\n[a](page.md#a-b-c) [b](#two-again) [c](https://x.org/y) [d](none.md) [e](#none)\n"
        "`trainers/<name>.py` `trainers/tac.py` `trainers/none.py` `bash scripts/none.sh x` `scripts/*/none.sh`\n"
        "```\nbash scripts/none_either.sh\n[f](none.md)\n```\n"
    )
    assert broken_links(page) == ["none.md", "#none"]
    wrong = ["scripts/*/none.sh", "scripts/none.sh", "scripts/none_either.sh", "trainers/none.py"]
    assert missing(page) == wrong and "trainers/tac.py" in paths(page)

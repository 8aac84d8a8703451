"""The HTML report and the Markdown page of results: they stand alone, show what they should, and open in a browser
without a complaint.
"""

import base64
import html.parser
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import made_runs
import numpy as np
import pytest
from PIL import Image
from support import png

from clusterprompt.commands import results
from clusterprompt.results.examples import thumbnail

pytest.importorskip("matplotlib")
CHECKOUT = Path(__file__).resolve().parents[2]
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(report, page, folder) of runs of two methods and two seeds, with images, one of them lost and one damaged."""
    place = tmp_path_factory.mktemp("results")
    data, runs = place / "data", place / "runs <i>"
    (data / "shapes").mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (200, 100), (60 * number, 90, 200)).save(data / "shapes" / f"{number}.png")
    (data / "shapes" / "3.png").write_bytes(b"no image")
    predictions = [
        ("shapes/0.png", 0, 0, 0.9),
        ("shapes/1.png", 0, 2, 0.5),
        ("shapes/2.png", 1, 1, 0.6),
        ("shapes/lost.png", 2, 1, 0.4),
        ("shapes/3.png", 1, 0, 0.4),
    ]
    for trainer, off in (("ZeroshotCLIP", 0), ("TAC", 5)):
        accuracies = {seed: (50.0 + off + seed, 60.0 + off) for seed in (1, 2)}
        made_runs.base2new(runs, trainer, "Shapes", accuracies, backbone="tiny", root=data, predictions=predictions)
    damaged = next(runs.rglob("train_base/**/TAC/**/seed2")) / "predictions.csv"
    damaged.write_text("path,label,prediction,confidence\nx.png,0,77,1\n")
    words = [str(runs), "--html", str(place / "report.html"), "--page", str(place / "page.md")]
    words += ["--data", str(data)]
    assert results.main(words) == 0
    return place / "report.html", place / "page.md", place


class Reader(html.parser.HTMLParser):
    """Collects tags with their attributes, and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def report(made):
    return Reader(made[0].read_text(encoding="utf-8"))


def charts(reader) -> list:
    """Return the SVGs of the report, decoded."""
    uris = [attrs["src"] for tag, attrs in reader.tags if tag == "img" and attrs["src"].startswith("data:image/svg")]
    return [base64.b64decode(uri.split(",")[1]).decode() for uri in uris]


@pytest.mark.slow
def test_no_network(report):
    """Catches: a script, font or picture from elsewhere, also inside the charts."""
    assert not report.open and not {tag for tag, _ in report.tags} & {"script", "iframe", "object", "base"}
    for _, attrs in report.tags:
        for name in ("src", "href"):
            assert attrs.get(name, "#").startswith(("data:", "#")), attrs
    for svg in charts(report):
        assert not re.findall(r"(?:href|src)=\"(?!#|data:)[^\"]*|url\((?!#)[^)]*|<script|<!DOCTYPE", svg)


def test_what_is_shown(report):
    """Catches: a chart without a caption, a kind of chart left out, a table without its numbers."""
    captions = [
        attrs["alt"] for tag, attrs in report.tags if tag == "img" and attrs["src"].startswith("data:image/svg")
    ]
    assert all(len(caption) > 40 for caption in captions)
    for words in (
        "the harmonic mean is the same",
        "Harmonic mean of base and new",
        "classified rightly by epoch",
        "Loss, all terms",
        "TAC: what its loss is the sum of",
        "TAC minus zero-shot CLIP, mean over seeds: 3 of 3 classes gain, 0 lose; on average +5.0",
        "taken for what (columns)",
    ):
        assert sum(words in caption for caption in captions) >= 1, words
    assert (
        "56.50 ± 0.50" in report.text
        and "small synthetic world" in report.text
        and "OPTIM.MAX_EPOCH" in report.text
        and "Shapes1" in report.text
    )
    assert all("<text" in svg for svg in charts(report))  # text stays text: searchable, and drawn by the reader's fonts


def test_names_are_escaped(report):
    """Catches: a class or folder whose name becomes markup, or formulas, in the page or in a chart."""
    name = made_runs.CLASSES[2]
    assert name in report.text and "runs <i>" in report.text and not any(tag in ("b", "i") for tag, _ in report.tags)
    assert any('&lt;b&gt;&amp;"$x$' in svg.replace("&quot;", '"') for svg in charts(report))


def test_examples(report):
    """Catches: full-size images in the page, a lost or damaged image that ends it all, predictions of other classes
    counted.
    """
    jpegs = [
        base64.b64decode(attrs["src"].split(",")[1])
        for tag, attrs in report.tags
        if tag == "img" and "jpeg" in attrs["src"]
    ]
    assert jpegs and all(len(jpeg) < 6000 for jpeg in jpegs)
    assert "image not found" in report.text and "image cannot be read" in report.text
    assert re.search(r"damaged \(a class beyond the 3 of result.json\): .*seed2", report.text)


def test_images_that_cannot_be_shown(tmp_path):
    """Catches: a report that a decompression bomb ends, that hangs at a pipe, or that a program is started for."""
    (tmp_path / "large.png").write_bytes(png(60000, 60000, 8, 2, b"0" * 99))
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "eps.png").write_text("%!PS-Adobe-3.0 EPSF-3.0")
    for name in ("large.png", "eps.png"):
        assert thumbnail([tmp_path], name) == ("", "image cannot be read"), name
    assert thumbnail([tmp_path], "pipe.png") == ("", "image not found (--data)")
    Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(tmp_path / "deep.png")
    white = thumbnail([tmp_path], "deep.png", [0, 4095])[0].split(",")[1]
    assert Image.open(io.BytesIO(base64.b64decode(white))).getpixel((0, 0)) == (255, 255, 255)


def test_page(made):
    """Catches: a page whose pictures are missing, that does not say how it is made, or takes the drawn world for the
    real one.
    """
    text = made[1].read_text(encoding="utf-8")
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(pictures) >= 4 and all((made[2] / name).read_text().startswith("<svg") for name in pictures)
    assert "clusterprompt results" in text and "compares with no published number" in text and "| TAC " in text


def test_drawn_twice_is_the_same(made, report):
    """Catches: dates and random ids in charts, which would change the repository's page each time it is made."""
    pictures = list((made[2] / "page").iterdir())
    assert pictures and {path.read_text(encoding="utf-8") for path in pictures} <= set(charts(report))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_browser(made, tmp_path):
    """Catches: pictures that a browser cannot draw, errors in its console, a page that is wider than a phone."""
    page = tmp_path / "report.html"
    # What the browser found is written where --dump-dom shows it; the report itself has no script.
    probe = """<script>addEventListener("load", () => {
        const broken = [...document.images].filter(i => !i.naturalWidth).length;
        const width = document.documentElement.scrollWidth;
        document.title = JSON.stringify([document.images.length, broken, width, innerWidth]);
        })</script>"""
    page.write_text(made[0].read_text(encoding="utf-8").replace("</body>", probe + "</body>"), encoding="utf-8")
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr",
        "--v=0",
        "--window-size=500,900",
        "--dump-dom",
        page.as_uri(),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert "CONSOLE" not in ran.stderr, ran.stderr[-2000:]
    images, broken, width, window = json.loads(re.search(r"<title>(.*?)</title>", ran.stdout).group(1))
    assert images > 10 and broken == 0 and width <= window


@pytest.mark.parametrize(
    "path, why",
    [
        ("{outside}/secret.png", "not below the data root"),
        ("../outside/secret.png", "not below the data root"),
        ("secret.png", "not found"),
        ("bomb.png", "cannot be read"),
    ],
)
def test_images_come_from_the_data_root_only(path, why, tmp_path, monkeypatch):
    """Catches: any image of the machine in a report, because predictions.csv names it; a bomb that ends it."""
    from clusterprompt.results.examples import thumbnail

    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    Image.new("RGB", (40, 40)).save(outside / "secret.png")
    Image.new("RGB", (400, 400)).save(root / "bomb.png")
    Image.new("RGB", (4, 4)).save(root / "good.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    uri, said = thumbnail([root], path.format(outside=outside))
    assert not uri and why in said
    assert thumbnail([tmp_path, root], "good.png")[0].startswith("data:image/jpeg")

"""What files do to whoever opens them, and what is made of them."""

from __future__ import annotations

import io
import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pypdfium2
import pytest
from pdf_samples import A4, PICTURE, SENTENCE, make_pdf, say, to_unicode
from PIL import Image
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from ocr_sprint.core.errors import DataError
from ocr_sprint.documents.pages import (
    MAX_PAGES,
    TARGET_LONG_SIDE,
    Page,
    page_image,
    read_pages,
    source_kind,
)


def write(folder: Path, data: bytes, name: str = "letter.pdf") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def only_page(path: Path) -> Page:
    (page,) = read_pages(path)
    return page


def typed(pages: int = 1, **settings: object) -> bytes:
    "A PDF as office software writes it."
    file = io.BytesIO()
    canvas = Canvas(file, **settings)
    for _ in range(pages):
        canvas.drawString(60, 500, SENTENCE)
        canvas.showPage()
    canvas.save()
    return file.getvalue()


def png(image: Image.Image, **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **settings)
    return file.getvalue()


# Files that cannot be read say why, in one line that begins with their name

BROKEN: MappingProxyType[str, tuple[bytes, str]] = MappingProxyType(
    {
        "empty.pdf": (b"", "the file is empty"),
        "text.pdf": (b"just text, no PDF", "neither a PDF nor an image"),
        "head.pdf": (b"%PDF-1.7\n", "damaged, cut short or without pages"),
        "half.pdf": (typed()[: len(typed()) // 2], "damaged, cut short or without pages"),
        "locked.pdf": (typed(encrypt=StandardEncryption("secret", "owner")), "it is encrypted; remove the password"),
        "zero.pdf": (make_pdf(), "damaged, cut short or without pages"),
        "lost.pdf": (make_pdf((A4, say()), count=2), "page 2 cannot be drawn"),
        "many.pdf": (make_pdf(*[(A4, b"")] * 201), "201 pages, more than 200; split the file"),
        "boast.pdf": (make_pdf((A4, say()), count=10**6), "1000000 pages, more than 200; split the file"),
        "half.png": (png(Image.effect_noise((300, 300), 90))[:9000], "cannot be decoded"),
        "head.png": (b"\x89PNG\r\n\x1a\n", "its header is damaged"),
        "sound.webp": (b"RIFF\0\0\0\0WAVEfmt ", "neither a PDF nor an image"),
        "huge.png": (png(Image.new("1", (12_000, 12_000))), "page 1 has 12000 x 12000 pixels, more than 50 million"),
    }
)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_says_why(name: str, tmp_path: Path) -> None:
    data, reason = BROKEN[name]
    path = write(tmp_path, data, name)
    with pytest.raises(DataError) as caught:
        list(read_pages(path))
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert reason in message
    assert "\n" not in message
    assert str(tmp_path) not in message


def test_the_reason_is_the_files_own(tmp_path: Path) -> None:
    for name in ("locked.pdf", "zero.pdf", "locked.pdf", "half.pdf", "locked.pdf"):
        test_a_broken_file_says_why(name, tmp_path)


def test_a_file_is_what_its_first_bytes_say(tmp_path: Path) -> None:
    picture = write(tmp_path, png(Image.new("L", (30, 20), 255)), "picture.pdf")
    letter = write(tmp_path, typed(), "letter.png")
    assert (source_kind(picture), only_page(picture).pixels is None) == ("image", False)
    assert (source_kind(letter), only_page(letter).pixels is None) == ("pdf", True)
    assert only_page(write(tmp_path, b"\0" * 500 + typed(), "late.pdf")).spans


def test_a_pdf_that_only_forbids_printing_is_read(tmp_path: Path) -> None:
    locked = typed(encrypt=StandardEncryption("", "owner", canPrint=0))
    assert [span.text for span in only_page(write(tmp_path, locked)).spans] == [SENTENCE]


@pytest.fixture
def nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a page was drawn")

    monkeypatch.setattr(pypdfium2.PdfPage, "render", refuse)
    monkeypatch.setattr(Image.Image, "load", refuse)


@pytest.mark.usefixtures("nothing_is_drawn")
def test_too_much_is_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    files = (
        write(tmp_path, make_pdf(*[(A4, b"")] * 500), "pages.pdf"),
        write(tmp_path, BROKEN["huge.png"][0], "huge.png"),
    )
    for path in files:
        with pytest.raises(DataError, match="more than"):
            list(read_pages(path))


def damaged(data: bytes, dice: random.Random) -> bytes:
    "The file with some bytes changed, lost or added, or its end cut off."
    torn = bytearray(data)
    for _ in range(dice.choice((1, 2, 4, 10))):
        place = dice.randrange(8, max(min(len(torn), dice.choice((60, 300, 10**6))), 9))
        kind = dice.random()
        if kind < 0.6:
            torn[place : place + 1] = bytes([dice.choice((0, 255, dice.randrange(256)))])
        elif kind < 0.8:
            del torn[place : place + dice.randrange(1, 20)]
        elif kind < 0.9:
            torn[place:place] = dice.randbytes(4)
        else:
            del torn[place:]
    return bytes(torn)


def picture_file(form: str, mode: str = "RGB", **settings: object) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((80, 60), 90).convert(mode).save(file, form, **settings)
    return file.getvalue()


WHOLE: MappingProxyType[str, Callable[[], bytes]] = MappingProxyType(
    {
        "pdf": lambda: typed(2, pageCompression=0),
        "png": lambda: picture_file("PNG"),
        "jpeg": lambda: picture_file("JPEG"),
        "tiff": lambda: picture_file("TIFF"),
        "fax": lambda: picture_file("TIFF", "1", compression="group4"),
        "webp": lambda: picture_file("WEBP"),
        "bmp": lambda: picture_file("BMP"),
    }
)


@pytest.mark.parametrize("kind", WHOLE)
def test_damage_is_survived_or_named(kind: str, tmp_path: Path) -> None:
    data, dice = WHOLE[kind](), random.Random(kind)
    for _ in range(150):
        path = write(tmp_path, damaged(data, dice), "torn")
        try:
            with warnings.catch_warnings(action="ignore"):
                list(read_pages(path))
        except DataError as error:
            assert "\n" not in str(error)


def test_an_image_without_a_size_is_named(tmp_path: Path) -> None:
    lines("L").save(tmp_path / "sizeless.tif")
    data = bytearray((tmp_path / "sizeless.tif").read_bytes())
    assert data[10:12] == b"\x00\x01", "the directory begins with tag 256, the width"
    data[10:12] = b"\xff\xff"
    with pytest.raises(DataError, match="cannot be decoded"):
        list(read_pages(write(tmp_path, bytes(data), "sizeless.tif")))


# Images of every kind become grey paper with dark ink


def inked(dtype: type[np.generic], paper: float, ink: float) -> Image.Image:
    levels = np.full((60, 80), paper, dtype)
    levels[20:40, 10:70] = ink
    return Image.fromarray(levels)


def lines(mode: str) -> Image.Image:
    return inked(np.uint8, 255, 0).convert(mode)


def see_through(mode: str) -> Image.Image:
    "Black ink on nothing, where the hidden colour of nothing is black too."
    image = Image.new("RGBA", (80, 60), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (10, 20, 70, 40))
    return image.convert(mode)


IMAGES: MappingProxyType[str, Callable[[Path], object]] = MappingProxyType(
    {
        "one_bit.png": lambda path: lines("1").save(path),
        "one_bit.tif": lambda path: lines("1").save(path, compression="group4"),
        "grey.jpg": lambda path: lines("L").save(path),
        "palette.png": lambda path: lines("P").save(path),
        "colour.bmp": lambda path: lines("RGB").save(path),
        "print.jpg": lambda path: lines("CMYK").save(path),
        "colour.webp": lambda path: lines("RGB").save(path),
        "sixteen_bit.png": lambda path: inked(np.uint16, 65535, 9000).save(path),
        "sixteen_bit.tif": lambda path: inked(np.uint16, 60000, 9000).save(path),
        "thirty_two_bit.tif": lambda path: inked(np.int32, 65535, 9000).save(path),
        "fraction.tif": lambda path: inked(np.float32, 1.0, 0.1).save(path),
        "nothing_is_paper.png": lambda path: see_through("RGBA").save(path),
        "nothing_is_paper_grey.png": lambda path: see_through("LA").save(path),
        "one_colour_is_paper.png": lambda path: inked(np.uint8, 7, 0).save(path, transparency=7),
        "one_entry_is_paper.png": lambda path: inked(np.uint8, 7, 0).convert("P").save(path, transparency=7),
    }
)


@pytest.mark.parametrize("name", IMAGES)
def test_ink_is_dark_on_light_paper(name: str, tmp_path: Path) -> None:
    IMAGES[name](tmp_path / name)
    page = only_page(tmp_path / name)
    assert page.pixels is not None
    assert (page.pixels.dtype, page.pixels.shape, page.spans) == (np.uint8, (60, 80), ())
    assert page.pixels[5, 5] > 225
    assert page.pixels[30, 40] < 60


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_camera_says_where_up_is(orientation: int, tmp_path: Path) -> None:
    image, tag = Image.new("L", (40, 20), 255), Image.Exif()
    image.paste(0, (0, 0, 20, 10))  # the upper left quarter of what is stored
    tag[0x0112] = orientation
    image.save(tmp_path / "photo.jpg", exif=tag, quality=95)
    pixels = page_image(tmp_path / "photo.jpg", 1)
    assert pixels.shape == ((20, 40) if orientation < 5 else (40, 20))
    dark = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}[orientation]
    rows, columns = np.array_split(np.arange(pixels.shape[0]), 2), np.array_split(np.arange(pixels.shape[1]), 2)
    darkness = {(i, j): pixels[np.ix_(rows[i], columns[j])].mean() for i in (0, 1) for j in (0, 1)}
    assert min(darkness, key=lambda quarter: darkness[quarter]) == dark


def test_an_orientation_that_does_not_exist_is_none(tmp_path: Path) -> None:
    tag = Image.Exif()
    tag[0x0112] = 99
    Image.new("L", (40, 20), 255).save(tmp_path / "photo.jpg", exif=tag)
    assert page_image(tmp_path / "photo.jpg", 1).shape == (20, 40)


def test_each_frame_is_a_page(tmp_path: Path) -> None:
    frames = [Image.new("L", (30 + index, 20), 255) for index in range(3)]
    frames[0].save(tmp_path / "fax.tif", save_all=True, append_images=frames[1:])
    assert [(page.number, page.width) for page in read_pages(tmp_path / "fax.tif")] == [(1, 30), (2, 31), (3, 32)]
    assert page_image(tmp_path / "fax.tif", 3).shape == (20, 32)


def test_frames_are_counted_too(tmp_path: Path) -> None:
    frame = Image.new("1", (4, 4))
    frame.save(tmp_path / "fax.tif", save_all=True, append_images=[frame] * MAX_PAGES)
    with pytest.raises(DataError, match="201 pages, more than 200"):
        list(read_pages(tmp_path / "fax.tif"))


@pytest.mark.parametrize("size", [(2400, 1700), (5000, 3000), (7000, 100), (9000, 1), (1, 1)])
def test_images_are_brought_down_and_never_up(size: tuple[int, int], tmp_path: Path) -> None:
    page = only_page(write(tmp_path, png(Image.new("L", size, 255)), "scan.png"))
    scale = min(TARGET_LONG_SIDE / max(size), 1)
    assert (page.width, page.height) == tuple(max(round(side * scale), 1) for side in size)
    assert page.pixels is not None
    assert page.pixels.shape == (page.height, page.width)
    assert page.pixels.min() == 255


# A page of a PDF is brought to one size, whatever it asks for

SIZES = {
    "A4": (b"/MediaBox [0 0 595 842]", (1653, 2339)),
    "folio": (b"/MediaBox [0 0 609.4 935.4]", (1564, 2400)),
    "mirrored": (b"/MediaBox [595 842 0 0]", (1653, 2339)),
    "five metres": (b"/MediaBox [0 0 14400 14400]", (2400, 2400)),
    "thread": (b"/MediaBox [0 0 14400 2]", (2400, 1)),
    "dot": (b"/MediaBox [0 0 0.1 0.1]", (1, 1)),
    "nothing": (b"/MediaBox [0 0 0 0]", (1700, 2200)),
    "beyond all": (b"/MediaBox [0 0 1e30 1e30]", (1700, 2200)),
    "unsaid": (b"", (1700, 2200)),
}


@pytest.mark.parametrize("name", SIZES)
def test_pages_are_measured_before_they_are_drawn(name: str, tmp_path: Path) -> None:
    box, size = SIZES[name]
    path = write(tmp_path, make_pdf((box, b"")))
    page = only_page(path)
    assert page.pixels is not None
    assert (page.width, page.height) == size == page.pixels.shape[::-1]
    assert page_image(path, 1).shape == page.pixels.shape


def ink_box(pixels: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.where(pixels < 128)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def turned(turn: int, box: tuple[float, float, float, float]) -> bytes:
    "Text that stands upright when the page is shown turned clockwise."
    left, bottom, right, top = box
    start = {
        0: b"1 0 0 1 %g %g cm " % (left, bottom),
        90: b"0 1 -1 0 %g %g cm " % (right, bottom),
        180: b"-1 0 0 -1 %g %g cm " % (right, top),
        270: b"0 -1 1 0 %g %g cm " % (left, top),
    }
    return start[turn] + say(x=30, y=150)


BOXES = {
    "plain": ((0, 0, 595, 842), None),
    "crop": ((0, 0, 595, 842), (50, 100, 545, 742)),
    "shifted": ((-100, -50, 495, 792), None),
    "shifted crop": ((100, 200, 900, 1200), (150, 300, 700, 1100)),
    "crop too large": ((0, 0, 595, 842), (50, 100, 745, 1042)),
}


@pytest.mark.parametrize("turn", [0, 90, 180, 270, -90])
@pytest.mark.parametrize("name", BOXES)
def test_boxes_lie_on_the_ink(name: str, turn: int, tmp_path: Path) -> None:
    media, crop = BOXES[name]
    attributes = b"/MediaBox [%d %d %d %d] /Rotate %d" % (*media, turn)
    shown = media
    if crop:
        attributes += b" /CropBox [%d %d %d %d]" % crop
        shown = max(media[0], crop[0]), max(media[1], crop[1]), min(media[2], crop[2]), min(media[3], crop[3])
    path = write(tmp_path, make_pdf((attributes, turned(turn % 360, shown))))
    page, pixels = only_page(path), page_image(path, 1)
    assert (page.width, page.height) == pixels.shape[::-1]
    (span,) = page.spans
    left, top, right, bottom = ink_box(pixels)
    assert span.text == SENTENCE
    assert span.box[0] == pytest.approx(left, abs=4)
    assert span.box[2] == pytest.approx(right, abs=4)
    assert span.box[1] <= top + 1 < bottom - 1 <= span.box[3] <= span.box[1] + 45


def test_a_broken_page_is_drawn_as_far_as_it_goes(tmp_path: Path) -> None:
    broken = b"BT /F1 12 (( Tf \x00\xff q q q Q ET Do [[["
    first, second = read_pages(write(tmp_path, make_pdf((A4, say()), (A4, broken))))
    assert first.spans
    assert second.pixels is not None
    assert second.pixels.min() == 255


# A text layer is believed when it is what the page shows


def is_recognised(path: Path) -> bool:
    page = only_page(path)
    assert (page.pixels is None) == bool(page.spans)
    return page.pixels is not None


LETTERS = sorted({ord(character) for character in SENTENCE} - {ord(" ")})
CODES = {
    "private": {code: f"{0xE000 + code:04x}" for code in LETTERS},
    "control": {code: f"{code % 28 + 3:04x}" for code in LETTERS},
    "zero": dict.fromkeys(LETTERS, "0000"),
    "replacement": dict.fromkeys(LETTERS, "fffd"),
    "cyrillic": {code: f"{0x400 + code:04x}" for code in LETTERS},
    "half surrogates": dict.fromkeys(LETTERS, "d835"),
    **{f"shift by {by}": {code: f"{code + by:04x}" for code in LETTERS} for by in (-31, -29, -1, 1, 3)},
}


@pytest.mark.parametrize("name", CODES)
def test_text_that_means_nothing_is_recognised(name: str, tmp_path: Path) -> None:
    data = make_pdf((A4, say()), extra=to_unicode(CODES[name]), font=b"/ToUnicode 10 0 R")
    assert is_recognised(write(tmp_path, data))


STRIPS = b"".join(b"q 595 0 0 106 0 %d cm /X Do Q " % (105 * index) for index in range(8))
SHADY = {
    "under a picture": say() + PICTURE,
    "over a picture": PICTURE + say(),
    "invisible over a picture": PICTURE + b"3 Tr " + say(),
    "invisible over a picture in strips": STRIPS + b"3 Tr " + say(),
    "over a picture in strips": STRIPS + say(),
    "invisible": b"3 Tr " + say(),
    "invisible beside a heading": say("SURAT PERINTAH") + b"3 Tr " + say(y=300),
    "sideways": b"0 1 -1 0 300 0 cm " + say(y=100),
    "upside down": b"-1 0 0 -1 595 800 cm " + say(y=100),
    "off the page": say(x=60, y=900) + say(x=700),
    "too little": say("SURAT PERINTAH"),
    "nothing": b"",
}


@pytest.mark.parametrize("name", SHADY)
def test_text_that_is_not_the_page_is_recognised(name: str, tmp_path: Path) -> None:
    assert is_recognised(write(tmp_path, make_pdf((A4, SHADY[name]))))


HONEST = {
    "alone": say(),
    "with a stamp": say() + b"q 150 0 0 150 400 60 cm /X Do Q ",
    "with a photograph": say() + b"q 450 0 0 450 70 20 cm /X Do Q ",
    "with something off the page": say() + say("RAHASIA", y=900),
    "with something invisible": say() + b"3 Tr " + say("RAHASIA", y=300),
}


@pytest.mark.parametrize("name", HONEST)
def test_only_text_that_shows_is_read(name: str, tmp_path: Path) -> None:
    assert [span.text for span in only_page(write(tmp_path, make_pdf((A4, HONEST[name])))).spans] == [SENTENCE]


STRAYS = {
    "0000": "\ufffd",
    "d835": "\ufffd",
    "d835dc00": "\ufffd\ufffd",
    "e041": "\ufffd",
    "200b": "",
    "00ad": "",
    "00e9": "é",
}


@pytest.mark.parametrize("utf16", STRAYS)
def test_a_stray_code_does_not_leave_the_page(utf16: str, tmp_path: Path) -> None:
    data = make_pdf(
        (A4, say("PANGKATZ AIPDA") + say(y=300)), extra=to_unicode({ord("Z"): utf16}), font=b"/ToUnicode 10 0 R"
    )
    text = " ".join(span.text for span in only_page(write(tmp_path, data)).spans)
    text.encode()
    assert text.replace(" ", "") == f"PANGKAT{STRAYS[utf16]}AIPDA{SENTENCE}".replace(" ", "")


def test_hyphens_at_the_end_of_a_line_stay(tmp_path: Path) -> None:
    content = say("sesuai dengan peraturan perundang-", y=500) + say("undangan yang berlaku di Indonesia", y=486)
    spans = only_page(write(tmp_path, make_pdf((A4, content)))).spans
    assert [span.text for span in spans] == ["sesuai dengan peraturan perundang-", "undangan yang berlaku di Indonesia"]


# Memory holds one page

WATCHER = """
import resource, sys
from pathlib import Path
from ocr_sprint.documents.pages import read_pages
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pages = sum(1 for page in read_pages(Path(sys.argv[1])))
print(pages, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def growth(path: Path) -> tuple[int, int]:
    "How many pages were read, and by how many megabytes the process grew."
    done = subprocess.run([sys.executable, "-c", WATCHER, str(path)], capture_output=True, text=True, check=True)
    pages, megabytes = done.stdout.split()
    return int(pages), int(megabytes)


HEAVY: MappingProxyType[str, tuple[Callable[[], bytes], int, int]] = MappingProxyType(  # file, pages, megabytes
    {
        "blank.pdf": (lambda: make_pdf(*[(A4, b"")] * 200), 200, 60),
        "large.pdf": (lambda: make_pdf(*[(b"/MediaBox [0 0 14400 14400]", b"")] * 5), 5, 60),
        "see_through.png": (lambda: png(Image.new("RGBA", (7000, 7000))), 1, 500),
    }
)


@pytest.mark.parametrize("name", HEAVY)
def test_memory_stays_bounded(name: str, tmp_path: Path) -> None:
    make, pages, bound = HEAVY[name]
    read, grown = growth(write(tmp_path, make(), name))
    assert read == pages
    assert grown < bound

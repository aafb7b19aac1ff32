"""PDF files written by hand, since no library will write them wrong."""

from __future__ import annotations

from collections.abc import Mapping

A4 = b"/MediaBox [0 0 595 842]"
SENTENCE = "SURAT PERINTAH Nomor Sprin 123 I 2025 kepada personel di bawah ini"
PICTURE = b"q 595 0 0 842 0 0 cm /X Do Q "  # the sample's image over a whole sheet of A4


def stream(data: bytes, attributes: bytes = b"") -> bytes:
    return b"<< %s /Length %d >> stream\n%s\nendstream" % (attributes, len(data), data)


GREY = stream(
    b"\x80",
    b"/Type /XObject /Subtype /Image /Width 1 /Height 1 /BitsPerComponent 8 /ColorSpace /DeviceGray",
)


def say(text: str = SENTENCE, x: int = 60, y: int = 500) -> bytes:
    return b"BT /F1 12 Tf %d %d Td (%s) Tj ET " % (x, y, text.encode())


def to_unicode(codes: Mapping[int, str]) -> bytes:
    "A font's character map, from codes to UTF-16 in hexadecimal."
    pairs = b"\n".join(b"<%02x> <%s>" % (code, utf16.encode()) for code, utf16 in codes.items())
    head = b"/CIDInit /ProcSet findresource begin\n12 dict begin\nbegincmap\n/CMapName /X def\n/CMapType 2 def\n"
    space = b"1 begincodespacerange\n<00> <ff>\nendcodespacerange\n%d beginbfchar\n" % len(codes)
    return stream(head + space + pairs + b"\nendbfchar\nendcmap\nend\nend")


def make_pdf(
    *pages: tuple[bytes, bytes],  # attributes and content of each
    count: int | None = None,  # what the file says of its pages
    extra: bytes = GREY,  # object 10: the image /X, or the font's character map
    font: bytes = b"",
) -> bytes:
    objects = {1: b"<< /Type /Catalog /Pages 2 0 R >>"}
    objects[3] = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica %s >>" % font
    objects[10] = extra
    for index, (attributes, content) in enumerate(pages):
        resources = b"/Resources << /Font << /F1 3 0 R >> /XObject << /X 10 0 R >> >>"
        objects[100 + 2 * index] = b"<< /Type /Page /Parent 2 0 R /Contents %d 0 R %s %s >>" % (
            101 + 2 * index,
            resources,
            attributes,
        )
        objects[101 + 2 * index] = stream(content)
    kids = b" ".join(b"%d 0 R" % (100 + 2 * index) for index in range(len(pages)))
    objects[2] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(pages) if count is None else count)
    return assembled(objects)


def assembled(objects: Mapping[int, bytes]) -> bytes:
    file, size = b"%PDF-1.4\n", max(objects) + 1
    table = [b"0000000000 65535 f \n"] * size
    for number in sorted(objects):
        table[number] = b"%010d 00000 n \n" % len(file)
        file += b"%d 0 obj %s endobj\n" % (number, objects[number])
    trailer = b"trailer << /Root 1 0 R /Size %d >>\nstartxref\n%d\n%%%%EOF" % (size, len(file))
    return file + b"xref\n0 %d\n" % size + b"".join(table) + trailer

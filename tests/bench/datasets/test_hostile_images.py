"""Image files that are damaged, disguised or unusual: what is done with each.

Refused with one line that names the file: what is not a sound image of 8 bits a channel. Read: what
is, by its content whatever its ending, as Pillow and so torchvision decode it.
"""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from quintain.bench.api.errors import BadData
from quintain.bench.datasets.image_folder import ImageFolder

SIZE = (16, 16)


def pixels(channels=3):
    made = np.random.default_rng(0).integers(0, 256, (*SIZE, channels), dtype=np.uint8)
    return made[..., 0] if channels == 1 else made


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind, content):
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(width, height, depth, colour, rows):
    """A PNG file written by hand."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


PLAIN = Image.fromarray(pixels())
GREY = Image.fromarray(pixels(1))
JPEG = encoded(PLAIN, "JPEG", quality=95)
WHOLE = encoded(PLAIN)
DEEP_COLOUR = png(16, 16, 16, 2, (b"\0" + b"\xab\xcd" * 48) * 16)
TEXT_BOMB = WHOLE[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 80_000_000)) + WHOLE[33:]
FLIPPED = bytearray(WHOLE)
FLIPPED[60] ^= 0xFF

REFUSED = {
    "zero bytes": (b"", "cannot be read"),
    "text": (b"this is a note, not a picture\n" * 20, "cannot be read"),
    "html": (b"<!doctype html><title>404 Not Found</title>", "cannot be read"),
    "noise": (bytes(range(256)) * 20, "cannot be read"),
    "a signature alone": (WHOLE[:8], "cannot be read"),
    "truncated png": (WHOLE[: len(WHOLE) // 2], "cannot be read"),
    "truncated jpeg": (JPEG[: len(JPEG) // 2], "cannot be read"),
    "a flipped byte": (bytes(FLIPPED), "cannot be read"),
    "bomb of pixels": (png(50_000, 50_000, 8, 0, b""), "cannot be read"),
    "large bomb of pixels": (png(2**31 - 1, 2**31 - 1, 8, 6, b""), "cannot be read"),
    "bomb of text": (TEXT_BOMB, "cannot be read"),
    "no width": (png(0, 16, 8, 2, b""), "cannot be read"),
    "16 bit grey": (
        encoded(Image.fromarray(np.full(SIZE, 40_000, np.uint16))),
        "has mode I;16: 8 bits",
    ),
    "16 bit colour": (DEEP_COLOUR, "has 16 bits a channel: 8 bits"),
    "32 bit float": (
        encoded(Image.fromarray(np.full(SIZE, 0.5, np.float32)), "TIFF"),
        "has mode F: 8 bits",
    ),
    "32 bit whole numbers": (
        encoded(Image.fromarray(np.full(SIZE, 70_000, np.int32)), "TIFF"),
        "has mode I: 8 bits",
    ),
    "a pickle": (b"\x80\x04cos\nsystem\n(S'touch hacked'\ntR.", "cannot be read"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot be read"),
    "another size": (
        encoded(Image.new("RGB", (16, 15))),
        r"is 16x15 pixels, but .*0\.png is 16x16",
    ),
}


def transparent_palette():
    image = PLAIN.quantize(16)
    return encoded(image, transparency=bytes(range(16))), image.convert("RGB")


def turned():
    """A JPEG that says it is to be turned by 90 degrees."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(PLAIN, "JPEG", quality=95, exif=exif)


def opened(content):
    return Image.open(io.BytesIO(content))


PALETTE, PALETTE_COLOURS = transparent_palette()
GREY_ALPHA = Image.merge("LA", (GREY, GREY.rotate(90)))
COLOUR_ALPHA = Image.merge("RGBA", (*PLAIN.split(), GREY))
CMYK = encoded(PLAIN.convert("CMYK"), "JPEG", quality=95)
OTHERS = [Image.new("RGB", SIZE, "red"), Image.new("RGB", SIZE, "blue")]
ANIMATED = encoded(PLAIN, "PNG", save_all=True, append_images=OTHERS)
ANIMATED_WEBP = encoded(PLAIN, "WEBP", lossless=True, save_all=True, append_images=OTHERS)
PAGES = encoded(PLAIN, "TIFF", save_all=True, append_images=OTHERS)

READ = {
    "a jpeg called png": (JPEG, opened(JPEG)),
    "cmyk": (CMYK, opened(CMYK).convert("RGB")),
    "grey": (encoded(GREY), GREY.convert("RGB")),
    "grey with alpha": (encoded(GREY_ALPHA), GREY.convert("RGB")),
    "colour with alpha": (encoded(COLOUR_ALPHA), PLAIN),
    "palette with transparency": (PALETTE, PALETTE_COLOURS),
    "one bit": (encoded(GREY.convert("1")), GREY.convert("1").convert("RGB")),
    "animated png": (ANIMATED, PLAIN),
    "animated webp": (ANIMATED_WEBP, PLAIN),
    "many pages": (PAGES, PLAIN),
    "to be turned, by exif": (turned(), opened(JPEG)),
    "bytes after the end": (WHOLE + b"<?php system($_GET['c']); ?>", PLAIN),
    "progressive jpeg": (
        encoded(PLAIN, "JPEG", quality=95, progressive=True),
        opened(encoded(PLAIN, "JPEG", quality=95, progressive=True)),
    ),
}


@pytest.fixture
def load(tmp_path):
    """Read a split whose second image is a file of this content."""
    (tmp_path / "test/a").mkdir(parents=True)
    (tmp_path / "test/a/0.png").write_bytes(WHOLE)

    def made(content):
        (tmp_path / "test/a/1.png").write_bytes(content)
        return ImageFolder(root=str(tmp_path)).load("test")

    return made


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line_that_names_the_file(load, name):
    content, message = REFUSED[name]
    with pytest.raises(BadData, match=rf"image .*/test/a/1\.png {message}") as caught:
        load(content)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", READ)
def test_read_as_pillow_decodes_it(load, name):
    content, image = READ[name]
    data = load(content)
    expected = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    found = (data.images.read(torch.tensor([1]))[0] * 255).round().byte()
    assert torch.equal(found, expected)


def test_many_pixels_are_refused_before_they_are_decoded(load, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with pytest.raises(BadData, match=r"image .*/test/a/0\.png"):
        load(WHOLE)

#!/usr/bin/python3
"""Writes images/: tiny PNG and JPEG files of every kind, and in images.json what Python's PIL makes of them: the middle
square resized to SIDE by its antialiased bilinear filter, in colours and in gray. Run it with the distribution's
python3-pil and python3-numpy; the output is committed."""
import json
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image

SIDE = 6
FOLDER = pathlib.Path(__file__).parent / "images"


def pattern(height: int, width: int) -> np.ndarray:
    """Smooth colours, which JPEG keeps, with a sharp edge."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [128 + 100 * np.sin(0.4 * x + 0.1 * y), 255 * y / height, 255 * x / width]
    picture = np.stack(planes, axis=2)
    picture[: height // 3, : width // 2] *= 0.3
    return picture.clip(0, 255).astype(np.uint8)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def write_rgb16(path: pathlib.Path, pixels: np.ndarray) -> None:
    """PIL writes no colours of 16 bits."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows))
                     + chunk(b"IEND", b""))


def expected(picture: Image.Image) -> dict:
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2

    def values(mode: str) -> list:
        square = picture.convert("RGB").convert(mode).crop((left, top, left + side, top + side))
        small = np.asarray(square.resize((SIDE, SIDE), Image.BILINEAR)).reshape(SIDE, SIDE, -1)
        return small.transpose(2, 0, 1).reshape(-1).tolist()

    return {"colours": values("RGB"), "gray": values("L")}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    wide, high, small = pattern(17, 26), pattern(23, 14), pattern(4, 5)
    wide_picture, high_picture = Image.fromarray(wide), Image.fromarray(high)
    alpha = Image.fromarray((255 * (wide[:, :, 2] > 60)).astype(np.uint8))

    def with_alpha(picture: Image.Image) -> Image.Image:
        picture = picture.copy()
        picture.putalpha(alpha)
        return picture

    wide_picture.save(FOLDER / "wide.png")
    high_picture.save(FOLDER / "high.png")
    Image.fromarray(small).save(FOLDER / "enlarged.png")
    Image.fromarray(pattern(SIDE, SIDE)).save(FOLDER / "as-stored.png")
    wide_picture.convert("L").save(FOLDER / "gray.png")
    wide_picture.convert("1").save(FOLDER / "bilevel.png")
    wide_picture.quantize(16).save(FOLDER / "palette.png")
    wide_picture.quantize(16).save(FOLDER / "palette-transparent.png", transparency=3)
    with_alpha(wide_picture).save(FOLDER / "alpha.png")
    with_alpha(wide_picture.convert("L")).save(FOLDER / "gray-alpha.png")
    for quality, name in ((90, "colours.jpg"), (30, "coarse.jpeg")):
        wide_picture.save(FOLDER / name, quality=quality)
    high_picture.save(FOLDER / "progressive.jpg", progressive=True)
    high_picture.convert("L").save(FOLDER / "gray.jpg")
    high_picture.convert("CMYK").save(FOLDER / "cmyk.jpg")
    results = {path.name: expected(Image.open(path)) for path in sorted(FOLDER.glob("*.*g"))
               if not path.name.endswith("16.png")}
    # Of 16 bits each value v is round(v / 257) of 8 bits.
    deep = wide.astype(np.uint16) * 257
    write_rgb16(FOLDER / "colours-16.png", deep)
    results["colours-16.png"] = expected(wide_picture)
    Image.fromarray(deep[:, :, 0]).save(FOLDER / "gray-16.png")
    results["gray-16.png"] = expected(Image.fromarray(wide[:, :, 0]))
    (FOLDER / "images.json").write_text(json.dumps({"side": SIDE, "files": results}) + "\n")


if __name__ == "__main__":
    main()

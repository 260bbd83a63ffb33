"""Recognition of files by their first bytes, for the sentences about those that are not read."""

import importlib.util

_EXTRAS = {  # of this project, and the module that reads the format
    **dict.fromkeys(("a HEIC image", "a HEIF image"), ("heic", "pillow_heif")),
    "a DICOM image": ("dicom", "pydicom"),
}
READ = "JPEG, PNG, TIFF, WebP, GIF, BMP, PPM, AVIF and JPEG 2000"
_BRANDS = {
    b"heic": "a HEIC image", b"heix": "a HEIC image", b"hevc": "a HEIC image", b"heim": "a HEIC image",
    b"heis": "a HEIC image", b"hevx": "a HEIC image", b"mif1": "a HEIF image", b"msf1": "a HEIF image",
    b"qt  ": "a QuickTime (MOV) video", b"crx ": "a Canon CR3 RAW image", b"3gp4": "a 3GP video",
    b"3gp5": "a 3GP video", b"M4A ": "an MP4 sound",
}  # fmt: skip
_IMAGES = {  # that are read
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "BigTIFF",
    b"MM\0+": "BigTIFF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
}
_MAGIC = (
    (b"8BPS", "a Photoshop (PSD) file"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript (EPS) file"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript (EPS) file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"PK\x03\x04", "a zip archive or an Office document"),
    (b"\xd0\xcf\x11\xe0", "an old Office document or Thumbs.db"),
    (b"\x89HDF", "an HDF5 file"),
    (b"CDF\x01", "a NetCDF file"),
    (b"CDF\x02", "a NetCDF file"),
    (b"SIMPLE  =", "a FITS file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"\xff\xff\xff\xff", "an Arrow stream"),
    (b"Obj\x01", "an Avro file"),
    (b"ORC", "an ORC file"),
    (b"MATLAB 5.0", "a MATLAB file"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a Windows program"),
    (b"SQLite format 3", "an SQLite database"),
    (b"FUJIFILMCCD-RAW", "a Fujifilm RAF RAW image"),
    (b"IIU\0", "a Panasonic RW2 RAW image"),
    (b"IIRO", "an Olympus ORF RAW image"),
    (b"IIRS", "an Olympus ORF RAW image"),
    (b"MMOR", "an Olympus ORF RAW image"),
    (b"FOVb", "a Sigma X3F RAW image"),
    (b"\0\0\1\0", "an icon (ICO)"),
    (b"\0\0\2\0", "a cursor (CUR)"),
    (b"icns", "an Apple icon (ICNS)"),
    (b"DDS ", "a DDS texture"),
    (b"v/1\x01", "an OpenEXR image"),
    (b"#?RADIANCE", "a Radiance HDR image"),
    (b"#?RGBE", "a Radiance HDR image"),
    (b"gimp xcf", "a GIMP (XCF) file"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"II\xbc", "a JPEG XR image"),
    (b"AT&T", "a DjVu document"),
    (b"n+1\0", "a NIfTI volume"),
    (b"NRRD", "an NRRD volume"),
    (b"\x1a\x45\xdf\xa3", "a Matroska or WebM video"),
    (b"\0\0\1\xba", "an MPEG video"),
    (b"\0\0\1\xb3", "an MPEG video"),
    (b"FLV\1", "a Flash video"),
    (b"OggS", "an Ogg file"),
    (b"ID3", "an MP3 sound"),
    (b"fLaC", "a FLAC sound"),
    (b"{\\rtf", "an RTF document"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
)  # fmt: skip


def find_image(data: bytes) -> str | None:
    """Return the image format of the file, of those that are read; None for any other file."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:2] == b"BM" and data[6:10] == bytes(4):  # reserved
        return "BMP"
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis"):
        return "AVIF"
    if _is_canon_raw(data):  # in a TIFF file
        return None
    return next((name for magic, name in _IMAGES.items() if data.startswith(magic)), None)


def find_other(data: bytes) -> str | None:
    """Return what the file is, with an article, where it is no image of a format that is read; None if unknown."""
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return (
            _BRANDS.get(data[8:12], "an MP4 or QuickTime video") if data[4:8] == b"ftyp" else "a QuickTime (MOV) video"
        )
    if data[128:132] == b"DICM":
        return "a DICOM image"
    if data[:4] == b"RIFF":
        return {b"AVI ": "an AVI video", b"WAVE": "a WAV sound"}.get(data[8:12], "a RIFF file")
    if _is_canon_raw(data):
        return "a Canon CR2 RAW image"
    if data[16:20] == b"\xde\xc0\xef\xbe":
        return "an LMDB database"
    if data[257:262] == b"ustar":
        return "a tar archive"
    if data[344:348] in (b"n+1\0", b"ni1\0"):
        return "a NIfTI volume"
    return next((name for magic, name in _MAGIC if data.startswith(magic)), None) or _find_text(data)


def explain(data: bytes) -> str:
    """Return the sentence for a file that is not an image of a known format."""
    if (image := find_image(data)) is not None:
        return f"The file looks like {image}, but it is damaged, or of a kind that is not read (see docs/upload.md)."
    name = find_other(data)
    what = f"The file is {name}, which is not read" if name else "The file is not an image of a known format"
    if name in _EXTRAS:
        extra, module = _EXTRAS[name]
        damaged = importlib.util.find_spec(module) is not None
        state = "but it is damaged" if damaged else f"which is read where the extra `{extra}` is installed"
        what = f"The file is {name}, {state}"
    return f"{what}; {READ} are read (see docs/upload.md)."


def _is_canon_raw(data: bytes) -> bool:
    return data[8:10] == b"CR" and data[:2] in (b"II", b"MM")


def _find_text(data: bytes) -> str | None:
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if b"<svg" in start:
        return "an SVG drawing"
    if start.startswith(b"<?xml"):
        return "an XML document"
    if start.startswith((b"{", b"[")):
        return "JSON text"
    return None

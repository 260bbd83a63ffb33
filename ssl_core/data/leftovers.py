"""Leftovers: the files that operating systems, NAS, photo and GIS programs put beside images, and documents."""

import re

# Names of files and folders; of a folder, all that is in it.
_NAMES = frozenset(
    name.casefold()
    for name in (
        # macOS
        *("__MACOSX", "Icon\\x0d", "Icon\\x0D", "Network Trash Folder", "Temporary Items"),
        # Windows
        *("Thumbs.db", "Thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$RECYCLE.BIN"),
        *("System Volume Information", "FOUND.000", "WPSettings.dat", "IndexerVolumeGuid"),
        # Linux, and NAS of Synology and QNAP
        *("lost+found", "@eaDir", "#recycle", "@Recycle", "@Recently-Snapshot", "#snapshot", "@tmp", "@SynoResource"),
        # photo programs and editors
        *("Picasa.ini", "ZbThumbnail.info", "pspbrwse.jbf", "__pycache__"),
    )
)
# World files, projections, overviews and masks of GIS programs, some of which are TIFF files themselves; sidecars of
# photo programs and cameras.
_SIDECAR = re.compile(
    r"\.(tfw|tifw|tiffw|jgw|jpgw|jpegw|pgw|pngw|bpw|bmpw|gfw|gifw|j2w|jp2w|wld|prj|qpj|ovr|rrd|aux|aux\.xml|msk|cpg"
    r"|xmp|aae|thm|pp3|dop|lnk|url)$"
    r"|(^|/)(SYNOPHOTO_|SYNOINDEX_|~\$)[^/]*$",
    re.IGNORECASE,
)
_DOCUMENT = re.compile(
    r"\.(txt|md|rst|json|jsonl|csv|tsv|xml|ya?ml|html?|pdf|docx?|xlsx?|py|ipynb|sh|mat|npy|pkl|log|ini|cfg|toml|sha256|md5"
    r"|geojson|kml|shp|shx|dbf|bib|tex|names|data|h5|hdf5|parquet|odt|ods|rtf|r|m|bat|ps1)$"
    r"|(^|/)(readme|license|licence|copying|authors|changelog|makefile|contributing|citation|notice|version)(\.[a-z]{1,8})?$",
    re.IGNORECASE,
)
_IMAGE = re.compile(r"\.(jpe?g|png|tiff?|bmp|gif|webp|p[pgn]m|avif|jp2|hei[cf]|dcm)$", re.IGNORECASE)
_DATA = re.compile(r"\.(json|jsonl|csv|tsv|xml|xlsx?|mat|npy|pkl|h5|hdf5|parquet|names|data|geojson)$", re.IGNORECASE)


def is_leftover(path: str) -> bool:
    """Return whether the path is no file of the dataset: hidden, or of an operating system, a NAS or a GIS program."""
    parts = path.split("/")
    return any(part.startswith(".") or part.casefold() in _NAMES for part in parts) or _SIDECAR.search(path) is not None


def is_document(path: str) -> bool:
    """Return whether the path has the name of a document, such as a README or a label file."""
    return _DOCUMENT.search(path) is not None and _IMAGE.search(path) is None


def may_hold_labels(path: str) -> bool:
    """Return whether the document's name is that of data, such as a CSV or JSON file, and not of prose or code."""
    return _DATA.search(path) is not None

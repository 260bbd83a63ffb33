"""Image files that Pillow does not read, or not in full: deep and many-channelled TIFF and PNG, DICOM."""

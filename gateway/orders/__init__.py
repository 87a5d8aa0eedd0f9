"""Orders: what users want to download, prepared by workers, file by file."""

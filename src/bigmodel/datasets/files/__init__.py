"""Files of data: downloads, archives, folders of classes, tables."""

"""Data of the user's own: folders of images, arrays, recordings, text; one file a source, each with `read`."""

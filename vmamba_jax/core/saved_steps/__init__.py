"""The numbered steps that a training run saves, read without the run: the folder's files, checksums, the reader."""

"""One module per data set, or per layout of files; `data.load` opens them by name."""

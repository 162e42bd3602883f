"""Labeled images in shards: records of tar (webdataset), TFRecord and ArrayRecord files, read in any order, from disks, buckets and web servers."""

"""The scans on NVIDIA GPUs: `selective` is the backend `"pallas_gpu"`."""

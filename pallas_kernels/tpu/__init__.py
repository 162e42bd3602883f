"""The scans on TPUs: `selective` is the backend `"pallas_tpu"`."""

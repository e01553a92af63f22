"""How roles call each other: `base` says how it looks, `on_ray` and `in_process` do it."""

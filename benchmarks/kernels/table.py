KERNELS: dict[str, str] = {}

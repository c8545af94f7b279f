"""`python -m bigmodel.models.weights.unpickle SRC DST`: convert a torch file to safetensors in a process of its own.

Whatever a pickle holds happens here, with torch's unpickler of plain data only and with bounded memory. There is
nothing in this module to import: every name of `bigmodel.models` can be called by a checkpoint's config.
"""

if __name__ == "__main__":
    import contextlib
    import resource
    import sys
    from pathlib import Path

    import torch
    from safetensors.torch import save_file

    source, target = sys.argv[1:]
    with contextlib.suppress(OSError, ValueError):  # where the system counts memory otherwise, the timeout remains
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + 4 * Path(source).stat().st_size + 2**30
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        loaded = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # every way in which a file can be bad
        sys.exit(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict):
        sys.exit("it holds no dictionary of tensors")
    tensors = {str(name): value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        sys.exit("it holds no dictionary of tensors")
    save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, target)

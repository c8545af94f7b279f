"""`python -m bigmodel.models.weights.unpickle SRC DST`: convert a torch file to safetensors in a process of its own.

A pickle is read in this process only, with torch's unpickler of plain data and with bounded memory. The module defines
nothing to import: a checkpoint's config can call every name of `bigmodel.models`.
"""

if __name__ == "__main__":
    import contextlib
    import resource
    import sys
    from pathlib import Path

    import torch
    from safetensors.torch import save_file

    source, target = sys.argv[1:]
    with contextlib.suppress(OSError, ValueError):  # on systems without /proc the timeout remains
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + 4 * Path(source).stat().st_size + 2**30
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        loaded = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything
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

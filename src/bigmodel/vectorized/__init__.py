"""Many small runs as one program: jobs that differ in numbers only, their tensors stacked."""

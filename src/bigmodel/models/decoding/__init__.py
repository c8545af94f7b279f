"""From outputs to sequences: sampling, beam search, CTC."""

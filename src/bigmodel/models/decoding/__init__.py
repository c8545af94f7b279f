"""Decode model outputs to sequences: sampling, beam search, CTC."""

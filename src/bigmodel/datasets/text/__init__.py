"""Datasets of texts, molecules among them, and tokenizers."""

"""Pretrained weights and adapters."""

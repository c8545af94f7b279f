"""A trained model and what prepares its inputs and words its outputs."""

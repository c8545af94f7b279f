"""Draw runs and tables as HTML for notebooks, without a library: small, and in the colors of light and dark themes."""

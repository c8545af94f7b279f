"""Give a model away: a folder that stands alone, with a card of facts, licenses and hashes."""

"""How much to trust a network: λ from observations, and errors without the truth."""

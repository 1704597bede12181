"""The dust paper (arXiv:1904.13265) as one study: its rows, its conclusions, and what only the sphere adds."""

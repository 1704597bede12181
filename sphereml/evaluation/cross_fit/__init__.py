"""What cross-fitting is worth: the CMB that a template takes from its training target, and the truth of its errors."""

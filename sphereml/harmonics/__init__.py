"""Harmonic analysis on the sphere and its flat (FFT) twin: transforms, spectra, correlation r(ell)."""

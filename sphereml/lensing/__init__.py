"""CMB lensing from polarization: the noise of quadratic estimators, by one estimate and iterated."""

"""What templates of dust do to r: bias and error over drawn skies, by template, way of cleaning and survey.

Conventions: maps are Q and U in uK_CMB, COSMO, NEST; r is that of 0.05 / Mpc; bandpowers are C_ell of pure B.  One
realization of dust, scaled by frequency as a modified black body without a change of its angles, stands in all skies;
the CMB (Gaussian, with the power of lensed E and B), tensors and noise are drawn anew.
"""

"""Filaments of the gas and the polarization they foretell: rolling Hough transform, structure tensor, derivatives.

Conventions of every module here: maps are NEST, channel-last; a filament's angle theta runs from south towards east,
as COSMO's polarization angle does; dust is polarized across the filament (the magnetic field runs along it), so

    Q = -I cos 2 theta,   U = -I sin 2 theta   (COSMO).

Stokes maps are ``(npix, 2)``, Q and U, in the unit of the gas they are made from.
"""

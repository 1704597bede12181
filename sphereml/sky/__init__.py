"""Geometry of the pixelized sphere: grids, ordering, regions, neighbour graphs, rotations and masks.

Conventions: pixels are in NEST order; vectors are unit vectors ``(..., 3)``; longitudes and latitudes are degrees in
the frame of the map (Galactic for everything shipped).
"""

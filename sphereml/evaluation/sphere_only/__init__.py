"""What only the sphere shows: one network on the sphere and on patches, place by place and by the square degree."""

"""Williams designs against random, cyclic and fixed orders."""

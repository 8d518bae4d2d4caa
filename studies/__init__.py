"""Studies of the method on simulated judges and on logs of real samples. They support design decisions; the server does not need them."""

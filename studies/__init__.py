"""Studies of the method, on simulated judges and on logs of real samples. Nothing in the server imports them."""

def plot(rows, bins, path): pass

"""One file (or folder) per published system, and the registry that names them."""

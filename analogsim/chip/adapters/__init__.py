"""Digital adapters behind the matrices of a twin: put on, trained while the weights stay, kept in files."""

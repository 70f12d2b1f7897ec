"""Training data: bags of any robot become episodes at the rate of a model, in a cache made for random access."""

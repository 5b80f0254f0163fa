"""The warm start stage: fetches the weights of the registered version that a training starts from."""

"""The network and its math: attention, decoding, assignment, loss. Imports only torch."""

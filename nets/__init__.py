"""The maths: network, attention, decode, assignment, loss. Imports torch, torchvision and itself."""

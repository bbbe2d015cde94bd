"""This room goes the whole way from models and prompts to a bundle that can be served, one step after the other (`ipr init`)."""

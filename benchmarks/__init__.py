"""Measurements beside a peer that is run in the same go: ratios travel between machines, figures do not."""

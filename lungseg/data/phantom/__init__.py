"""A made-up chest, piece by piece: outlines, attenuation, disease, and what else stands on a film."""

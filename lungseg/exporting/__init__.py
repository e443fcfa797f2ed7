"""A trained network as one file for other programs: ONNX, torch.export or tensors, with what surrounds it inside."""

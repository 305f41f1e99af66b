"""What a GPU does with this engine: `python -m benchmarks.gpu`."""

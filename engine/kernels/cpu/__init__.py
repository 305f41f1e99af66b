"""C++ kernels for few rows on a CPU, compiled on the machine that runs them."""

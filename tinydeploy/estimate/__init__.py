"""What a model costs by cost functions of its kernels, without compiler and emulator."""

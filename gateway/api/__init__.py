"""Routes, one module for each API family."""

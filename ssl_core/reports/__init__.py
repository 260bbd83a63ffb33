"""Reports of runs: curves, view grid, projection maps, confusion matrix, TensorBoard, progress bar."""

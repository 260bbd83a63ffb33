"""What people look at: curves, view grid, maps, confusion matrix, TensorBoard, progress bar."""

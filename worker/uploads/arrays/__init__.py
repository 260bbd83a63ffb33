"""Arrays: images and labels as arrays, from npz, npy and idx files."""

"""Binary formats of well-known datasets: CIFAR-10 and CIFAR-100, STL-10."""

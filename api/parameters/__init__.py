"""Types of parameters and fields whose schema says what they may be."""

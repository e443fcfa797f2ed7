"""Whether a network reads the class from what lies outside the lungs."""

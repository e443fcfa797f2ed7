"""Class activation maps: ways to them, and what they say inside and outside the lungs."""
